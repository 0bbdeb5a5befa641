"""An HTTPS server that answers every request with OK, as cheaply as it can: python null_sink.py PORT CERTIFICATE KEY.

It stands in for AWS IoT Core's data endpoint, so that the publishing process pays only for the network.
"""

import asyncio
import contextlib
import ssl
import sys

_BODY = b'{"message":"OK","traceId":"b1dd5bc2-5b0d-4f6b-9b8c-5a1f9c2f7a10"}'
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nx-amzn-RequestId: b1dd5bc2-5b0d-4f6b-9b8c-5a1f9c2f7a10\r\n"
    b"Connection: keep-alive\r\n\r\n%b" % (len(_BODY), _BODY)
)


async def answer(reader, writer):
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            if writer.is_closing():
                return
            writer.write(_ANSWER)
    writer.close()


async def serve(port, certificate, key):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server = await asyncio.start_server(answer, "127.0.0.1", port, ssl=tls)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), *sys.argv[2:]))
