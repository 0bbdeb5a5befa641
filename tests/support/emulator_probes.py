"""What the emulator does inside that no client can see, without our fixes and with them. Runs in its environment.

Prints JSON: for each probe, whether it does what it should in both cases.
"""

import asyncio
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ministack.services import iot, sqs

ACCOUNT, REGION = "000000000000", "us-east-1"


def pauses_a_connection_that_asyncio_reads():
    """On Python 3.11.2 a pause before that is forgotten, but this tells them apart on every Python."""
    seen = []

    class Transport:
        def pause_reading(self):
            seen.append("paused")

    async def accept():
        iot._MtlsAcceptor().connection_made(Transport())
        seen.append("read")  # asyncio starts to read when connection_made has returned
        await asyncio.sleep(0)

    asyncio.run(accept())
    return seen == ["read", "paused"]


def remembers_the_policies_of_thousands_of_devices():
    document = json.dumps({"Version": "2012-10-17", "Statement": []})
    for number in range(5000):
        iot._parsed_iot_policy(document, (("iot:clientid", str(number)),))
    before = iot._parsed_iot_policy.cache_info().misses
    iot._parsed_iot_policy(document, (("iot:clientid", "0"),))
    return iot._parsed_iot_policy.cache_info().misses == before


async def subscribe(topics, told):
    async def hear(topic, *_):
        told.append(topic)

    return [await iot.broker_subscribe(ACCOUNT, REGION, topic, hear) for topic in topics]


def matches_a_message_with_few_of_many_subscriptions():
    compared, told = [], []
    matches = iot._subscription_matches

    def counted(*arguments):
        compared.append(arguments)
        return matches(*arguments)

    async def publish():
        subscriptions = await subscribe([f"devices/{number}" for number in range(1000)], told)
        iot._subscription_matches = counted
        try:
            await iot.broker_publish(ACCOUNT, REGION, "devices/7", b"{}")
        finally:
            iot._subscription_matches = matches
        for subscription in subscriptions:
            await iot.broker_unsubscribe(subscription)

    asyncio.run(publish())
    assert told == ["devices/7"]
    return len(compared) < 10


def ends_a_subscription_without_a_look_at_the_others():
    async def cost(others):
        """Seconds of the processor to end a hundred subscriptions."""
        subscriptions = await subscribe([f"devices/{number}" for number in range(others + 100)], [])
        start = time.thread_time()
        for subscription in subscriptions[:100]:
            await iot.broker_unsubscribe(subscription)
        spent = time.thread_time() - start
        iot._subscriptions.clear()
        return spent

    return asyncio.run(cost(20_000)) < 10 * asyncio.run(cost(100))


@contextmanager
def queue(name):
    sqs._act_create_queue({"QueueName": name}, "")
    url = sqs._queue_url(name)
    yield url, sqs._queues[url]
    sqs._act_delete_queue({"QueueUrl": url}, url)


def adds_a_message_under_the_lock_of_the_queues():
    held = []

    class Messages(list):
        def append(self, message):
            with ThreadPoolExecutor() as other:
                free = other.submit(sqs._queues_lock.acquire, blocking=False).result()
            if free:
                sqs._queues_lock.release()
            held.append(not free)
            super().append(message)

    with queue("locked") as (url, found):
        found["messages"] = Messages()
        sqs._HANDLERS["SendMessage"]({"QueueUrl": url, "MessageBody": "x"}, url)
        assert len(found["messages"]) == len(held) == 1
    return held == [True]


def gives_a_function_more_than_ten_messages_at_once():
    with queue("batch") as (url, _):
        for _ in range(20):
            sqs._HANDLERS["SendMessage"]({"QueueUrl": url, "MessageBody": "x"}, url)
        return len(sqs._receive_messages_for_esm(url, 20)) == 20


PROBES = (
    pauses_a_connection_that_asyncio_reads,
    remembers_the_policies_of_thousands_of_devices,
    matches_a_message_with_few_of_many_subscriptions,
    ends_a_subscription_without_a_look_at_the_others,
    adds_a_message_under_the_lock_of_the_queues,
    gives_a_function_more_than_ten_messages_at_once,
)

if __name__ == "__main__":
    plain = [probe() for probe in PROBES]
    sys.path.append(str(Path(__file__).resolve().parents[2] / "tools" / "local_cloud"))
    import emulator_entry  # noqa: F401 - which applies the fixes

    fixed = [probe() for probe in PROBES]
    print(json.dumps({probe.__name__: found for probe, *found in zip(PROBES, plain, fixed, strict=True)}))  # noqa: T201
