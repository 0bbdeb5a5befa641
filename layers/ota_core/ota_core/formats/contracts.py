"""What the functions get and answer, as JSON.

The state machine carries these documents from one function to the next, so no import shows who relies on which field.
Mypy holds the handlers to them; tests/infrastructure/test_contracts.py, the state machine and the files in `events/`.
Where a function has several answers, `outcome`, `step` or `settled` tells them apart.

An `execution` is an ARN, times are RFC 3339 in UTC, digests are SHA-256 in hex. Functions import this module for type
checking only, so that no cold start waits for it.
"""

from typing import Any, Literal, NotRequired, TypedDict, final


class ObjectVersion(TypedDict):
    """One immutable version of an object in the bucket; size in bytes."""

    key: str
    version_id: str
    size: int


# --- what starts an execution of the pipeline -------------------------------------------------------------------------

# S3's part of EventBridge's "Object Created"
# (https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html). The key is not encoded.
CreatedObject = TypedDict("CreatedObject", {"key": str, "size": int, "etag": str, "version-id": str, "sequencer": str})


class ObjectCreatedDetail(TypedDict):
    """The part of EventBridge's "Object Created" that the pipeline reads."""

    object: CreatedObject


class ObjectCreated(TypedDict):
    """A file arrived in the inbox."""

    detail: ObjectCreatedDetail


class Continued(TypedDict):
    """Stands for a registration where an execution goes on with a release after an operator's action."""

    outcome: Literal["continued"]
    release_id: str


class Continuation(TypedDict):
    """An operator's action ended a release's execution, and this one goes on from what PostgreSQL knows."""

    registration: Continued


PipelineInput = ObjectCreated | Continuation


# --- ValidateSignature ------------------------------------------------------------------------------------------------


class ValidateDrop(TypedDict):
    """Validate the drop that an object belongs to; `pending` are the members found at fault before a grace period."""

    object: CreatedObject
    execution: str
    pending: NotRequired[list[ObjectVersion]]


class ValidatedRelease(TypedDict):
    """What a valid drop becomes.

    Attributes:
        manifest_sha256: of the signed payload.
        envelope: the signed manifest's JSON.
        keyid: of the signer.
        image: the stored copy of the bytes that were checked.
        targets: the stored list of devices; None where the manifest lists none.
        target_count: how many devices are listed, 0 where tags name them; None for the whole fleet.
        warnings: for the release's record.
    """

    release_id: str
    manifest_sha256: str
    envelope: str
    keyid: str
    image: ObjectVersion
    targets: ObjectVersion | None
    target_count: int | None
    warnings: list[str]


class DropAccepted(TypedDict):
    """The drop passed every check that needs no database."""

    outcome: Literal["accepted"]
    members: list[ObjectVersion]
    release: ValidatedRelease


class DropPending(TypedDict):
    """The drop is at fault, and the file that puts it right may still arrive within so many seconds."""

    outcome: Literal["pending"]
    members: list[ObjectVersion]
    code: str
    message: str
    grace_seconds: int


class DropRejected(TypedDict):
    """The drop is at fault; `code` is a RejectionCode and `message` says what to do."""

    outcome: Literal["rejected"]
    members: list[ObjectVersion]
    code: str
    message: str


class DropIncomplete(TypedDict):
    """Files of the drop, by their keys, have not arrived yet."""

    outcome: Literal["waiting"]
    missing: list[str]


class NothingToDo(TypedDict):
    """Another execution has this drop, or it is no longer there."""

    outcome: Literal["nothing_to_do"]
    why: str


Validation = DropAccepted | DropPending | DropRejected | DropIncomplete | NothingToDo


# --- RegisterMetadata -------------------------------------------------------------------------------------------------


class RegisterRelease(TypedDict):
    """Register a validated drop; `take_over_from` is the execution that had this release and broke."""

    release: ValidatedRelease
    members: list[ObjectVersion]
    execution: str
    take_over_from: NotRequired[str]


class RegisteredRelease(TypedDict):
    """The release of this manifest; one that `is_staged` has waves."""

    release_id: str
    is_staged: bool


class Registered(RegisteredRelease):
    """The release exists, this execution owns it, and `version` is what it got."""

    outcome: Literal["registered"]
    version: str


class AlreadyReleased(RegisteredRelease):
    """The same manifest was released before."""

    outcome: Literal["already_released"]
    version: str


class InProgress(RegisteredRelease):
    """The same manifest belongs to the execution `owner`, which may run or have failed."""

    outcome: Literal["in_progress"]
    owner: str


class RegistrationRefused(TypedDict):
    """The release cannot follow the latest one of its product; `code` is a RejectionCode."""

    outcome: Literal["rejected"]
    code: str
    message: str


Registration = Registered | AlreadyReleased | InProgress | RegistrationRefused


# --- ResolveTargets and PublishMqtt -----------------------------------------------------------------------------------


@final  # so that mypy tells two types apart by their keys
class ResolveWave(TypedDict):
    """Write the messages of a wave, counted from 1, to the devices above `earlier_percent` and up to `percent`."""

    release_id: str
    execution: str
    wave: int
    percent: float
    earlier_percent: float


@final
class ResolveWithdrawal(TypedDict):
    """Write the messages that take a release back."""

    release_id: str
    execution: str


class BatchIndex(TypedDict):
    """The object that lists the batches, a PublishBatch a line; how many batches, and messages in them."""

    key: str
    batches: int
    messages: int


class WaveResolved(BatchIndex):
    """The messages of a wave are written."""

    outcome: Literal["wave"]
    wave: int


class WithdrawalResolved(BatchIndex):
    """The messages of a withdrawal are written."""

    outcome: Literal["withdrawal"]


class ResolutionSuperseded(TypedDict):
    """Another execution owns the release."""

    outcome: Literal["superseded"]


class MessageBatch(TypedDict):
    """The content of a batch's object: one payload for many topics."""

    topics: list[str]
    retain: bool
    payload: str


class PublishBatch(TypedDict):
    """Publish the batch in the object of this key."""

    batch: str


class Published(TypedDict):
    """How many messages were published: none of a batch that an earlier attempt published."""

    published: int


# --- AdvanceRollout ---------------------------------------------------------------------------------------------------


class AdvanceRelease(TypedDict):
    """Decide what a release does next.

    Attributes:
        outcome: `continued` where this execution takes the release over.
        published_wave: the wave that this execution has just published.
        started_at: when the execution started; executions from before the state machine said it have none.
    """

    release_id: str
    execution: str
    outcome: NotRequired[Literal["registered", "continued"]]
    published_wave: NotRequired[int]
    started_at: NotRequired[str]


class PublishWave(TypedDict):
    """Tell the devices of a wave, counted from 1, that earlier waves did not tell."""

    step: Literal["publish"]
    wave: int
    percent: float
    earlier_percent: float


class WaitUntil(TypedDict):
    """Look again at this time."""

    step: Literal["wait"]
    until: str
    why: str


class Abort(TypedDict):
    """Withdraw the release."""

    step: Literal["abort"]
    why: str


class Hold(TypedDict):
    """The release is paused."""

    step: Literal["hold"]


class Complete(TypedDict):
    """Every wave was published and watched."""

    step: Literal["complete"]


Step = PublishWave | WaitUntil | Abort | Hold | Complete


class Numbers(TypedDict):
    """What a step was decided from; see ota_core.rules.rollout.Progress."""

    waves_published: int
    expected: int
    proven: int
    reported: int
    ended: int
    installed: int
    failed: int


class ReleaseName(TypedDict):
    """The release, for events and people."""

    release_id: str
    product: str
    version: str


class AdvancedRelease(TypedDict):
    """What stands beside every step: its reasons, the release and the drop that the release came from."""

    numbers: Numbers
    release: ReleaseName
    members: list[ObjectVersion]


class AdvancedToPublish(PublishWave, AdvancedRelease):
    """PublishWave, and the release."""


class AdvancedToWait(WaitUntil, AdvancedRelease):
    """WaitUntil, and the release."""


class AdvancedToAbort(Abort, AdvancedRelease):
    """Abort, and the release."""


class AdvancedToHold(Hold, AdvancedRelease):
    """Hold, and the release."""


class AdvancedToComplete(Complete, AdvancedRelease):
    """Complete, and the release."""


class AdvanceSuperseded(TypedDict):
    """Another execution owns the release."""

    step: Literal["superseded"]


Advance = AdvancedToPublish | AdvancedToWait | AdvancedToAbort | AdvancedToHold | AdvancedToComplete | AdvanceSuperseded


# --- SettleDrop -------------------------------------------------------------------------------------------------------


class DropOutcome(TypedDict):
    """What an archived drop became; `message` says why its release was withdrawn."""

    state: Literal["rolling_out", "published", "withdrawn", "repeated"]
    release_id: str
    version: NotRequired[str]
    message: NotRequired[str]


class Reason(TypedDict):
    """Why a drop is rejected, and which stage found out; `code` is a RejectionCode."""

    code: str
    message: str
    stage: Literal["ValidateSignature", "RegisterMetadata"]


@final
class ArchiveDrop(TypedDict):
    """Move a drop to the archive; `discard` is its stored image, where no release refers to it."""

    members: list[ObjectVersion]
    outcome: DropOutcome
    execution: str
    discard: NotRequired[ObjectVersion]


@final
class RejectDrop(TypedDict):
    """Move a drop to `rejected/`; `discard` is its stored image, where there is one."""

    members: list[ObjectVersion]
    reason: Reason
    execution: str
    discard: NotRequired[ObjectVersion]


class DropArchived(TypedDict):
    """The drop lies in the archive."""

    settled: Literal["archived"]


class DropMovedToRejected(TypedDict):
    """The drop lies in `rejected/`, its reason in the object `reason_key`."""

    settled: Literal["rejected"]
    reason_key: str
    code: str
    message: str


# --- AnnounceFailure --------------------------------------------------------------------------------------------------


class ExecutionStatus(TypedDict):
    """How an execution ended, as far as it is read; dates in ms since 1970, `input` and `output` in JSON."""

    executionArn: str
    stateMachineArn: str
    name: str
    status: str
    startDate: int
    stopDate: int | None
    input: NotRequired[str | None]
    output: NotRequired[str | None]
    error: NotRequired[str | None]
    cause: NotRequired[str | None]
    redriveCount: int
    redriveStatus: str


# EventBridge's "Step Functions Execution Status Change"
# (https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html).
ExecutionStatusChange = TypedDict(
    "ExecutionStatusChange",
    {
        "version": str,
        "id": str,
        "detail-type": str,
        "source": str,
        "account": str,
        "time": str,
        "region": str,
        "resources": list[str],
        "detail": ExecutionStatus,
    },
)


class Failure(TypedDict):
    """What is announced; `key` is of the object that started the execution, unless an operator's action did."""

    execution: str
    status: str
    key: str | None
    release_id: str | None
    error: str | None
    cause: str
    next_step: str


# --- RecordStatus -----------------------------------------------------------------------------------------------------


class QueuedMessage(TypedDict):
    """A message of SQS (https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html); times are milliseconds."""

    messageId: str
    receiptHandle: str
    body: str
    attributes: dict[str, str]
    messageAttributes: dict[str, Any]
    md5OfBody: str
    eventSource: str
    eventSourceARN: str
    awsRegion: str


class QueuedMessages(TypedDict):
    """What devices said, as the IoT rule put it into the queue."""

    Records: list[QueuedMessage]


class ItemFailure(TypedDict):
    """The id of a message that stays in the queue."""

    itemIdentifier: str


class BatchAnswer(TypedDict):
    """Which messages stay in the queue."""

    batchItemFailures: list[ItemFailure]


# --- AuthorizeDevice --------------------------------------------------------------------------------------------------


class DeviceRegistration(TypedDict):
    """What AWS IoT Core asks a pre-provisioning hook before it registers a device.

    Attributes:
        claimCertificateId: the claim's certificate, where it is one.
        parameters: what the device says about itself; `MAC` is its address.
    """

    claimCertificateId: NotRequired[str]
    certificateId: str
    certificatePem: str
    templateArn: str
    clientId: str
    parameters: dict[str, str]


class RegistrationVerdict(TypedDict):
    """The hook's answer; `parameterOverrides` replace what the device said."""

    allowProvisioning: bool
    parameterOverrides: NotRequired[dict[str, str]]


# --- CheckConsistency and MigrateDatabase -----------------------------------------------------------------------------


class CheckEverything(TypedDict):
    """Nothing is asked for in particular."""


class Violation(TypedDict):
    """A rule that is broken, and by what."""

    rule: str
    what: str


class ConsistencyCounts(TypedDict):
    """How many releases were checked, and how many versions of dropped objects lie where."""

    releases: int
    archived: int
    rejected: int
    waiting: int


class ConsistencyReport(ConsistencyCounts):
    """What was checked, and what does not fit together: the first thousand of it."""

    is_consistent: bool
    violations: list[Violation]


class CustomResourceRequest(TypedDict):
    """CloudFormation's request.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-requests.html
    """

    RequestType: Literal["Create", "Update", "Delete"]
    ServiceToken: str
    ResponseURL: str
    StackId: str
    RequestId: str
    ResourceType: str
    LogicalResourceId: str
    PhysicalResourceId: NotRequired[str]
    ResourceProperties: dict[str, Any]
    OldResourceProperties: NotRequired[dict[str, Any]]


# --- HTTP: API Gateway's Lambda proxy integration, and OperateReleases behind AuthorizeOperator -----------------------


class Request(TypedDict):
    """What every request has."""

    httpMethod: str
    resource: str
    pathParameters: dict[str, str] | None
    queryStringParameters: dict[str, str] | None
    body: str | None
    isBase64Encoded: bool
    stageVariables: dict[str, str] | None


class ApiRequest(Request):
    """A request (https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html).

    `requestContext` says who asks; the name of a header may be written in any case.
    """

    path: str
    headers: dict[str, str] | None
    multiValueHeaders: dict[str, list[str]] | None
    multiValueQueryStringParameters: dict[str, list[str]] | None
    requestContext: dict[str, Any]


class _Answer(TypedDict):
    statusCode: int
    headers: dict[str, str]
    body: str
    isBase64Encoded: bool


@final
class ApiAnswer(_Answer):
    """An answer; `body` is text, or base64 of bytes."""


class OperatorRequest(Request):
    """What AuthorizeOperator passes on: a request that `caller` may make, an ARN or `cognito:<user name>:<sub>`."""

    caller: str


class Wake(TypedDict):
    """The present execution of a release, which another one should replace; where not `is_due`, only if it broke."""

    release_id: str
    execution: str
    is_due: bool


@final
class AnswerWithWake(_Answer):
    """An answer to the operator, and what AuthorizeOperator does before it passes the rest on."""

    wake: Wake


OperatorAnswer = ApiAnswer | AnswerWithWake
