"""Every stage of the pipeline dies just before and just after each call that it makes; every release comes to its end.

The functions run under a handler of the tests (tests/support/dying), deployed as a layer, which ends the process at the
chosen call once. `make prove` sweeps every call, `make test` a sample of them.
"""

import contextlib
import functools
import io
import itertools
import json
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from ota_core.rules.rollout import in_cohort
from support.drops import Drop, make_drop, target_list
from support.pipeline import Upload

STAGES = ("ValidateSignature", "RegisterMetadata", "ResolveTargets", "PublishMqtt", "AdvanceRollout", "SettleDrop")
MEMBERS = ("targets", "image", "manifest")
# So that a change of how a stage calls does not take its calls out of the sweep.
CALLS_AMONG_OTHERS = {
    "ValidateSignature": "GET /",
    "RegisterMetadata": "INSERT INTO products",
    "ResolveTargets": "COPY release_targets",
    "PublishMqtt": "POST /topics/",
    "AdvanceRollout": "UPDATE releases SET waves_published",
    "SettleDrop": "DELETE /",
}
HANDLER = Path(__file__).parents[1] / "support" / "dying" / "dying_handler.py"
MACS = target_list(6, first=0x0F00)
ROLLOUT = {
    "waves": [{"percent": 50, "soak": "0s"}, {"percent": 100, "soak": "0s"}],
    "abort": {"report_timeout": "1s"},  # Nobody reports.
}
AT_A_TIME = 8
# `make test` takes every so manieth cut: an odd number, so that both moments are among them.
SAMPLE = 25


@dataclass(frozen=True)
class Cut:
    """Where a stage dies; the calls of a stage for one release are counted from 1."""

    stage: str
    call: int
    moment: str


@dataclass(frozen=True)
class Released:
    """A release that has come to its end."""

    cut: Cut
    product: str
    drop: Drop
    uploads: list[Upload]
    has_died: bool


NOWHERE = Cut("", 0, "")


@pytest.fixture(scope="module")
def sweep(cloud, pipeline, new_product, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dying")
    with dying_functions(cloud, pipeline, folder):
        yield Sweep(pipeline, new_product, folder)


@contextlib.contextmanager
def dying_functions(cloud, pipeline, folder):
    """Deploy every stage under the handler that dies, and put them back."""
    functions = cloud.client("lambda")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(HANDLER, f"python/{HANDLER.name}")
    layer = functions.publish_layer_version(LayerName="dying-handler", Content={"ZipFile": packed.getvalue()})
    with contextlib.ExitStack() as stack:
        for stage in STAGES:
            name = pipeline.function_name(f"{stage}Function")
            before = functions.get_function_configuration(FunctionName=name)
            layers = [known["Arn"] for known in before["Layers"]]
            own = {"Handler": before["Handler"], "Layers": layers, "Environment": before["Environment"]}
            stack.callback(functions.update_function_configuration, FunctionName=name, **own)
            variables = before["Environment"]["Variables"] | {"DYING_FOLDER": str(folder), "DYING_STAGE": stage}
            functions.update_function_configuration(
                FunctionName=name,
                Handler=f"{HANDLER.stem}.lambda_handler",
                Layers=[*layers, layer["LayerVersionArn"]],
                Environment={"Variables": variables},
            )
        yield


class Sweep:
    """Releases with a staged rollout to listed devices, each with a cut of its own."""

    def __init__(self, pipeline, new_product, folder):
        self._pipeline = pipeline
        self._new_product = new_product
        self._folder = folder

    def release(self, cut, *, again=False):
        """Drop a release whose stage dies, and let it come to its end.

        Args:
            cut: where a stage dies.
            again: drop the same files again when the execution has broken; otherwise its own retries complete it.
        """
        product = self._new_product("cut")
        drop = make_drop(product=product, targets_file=json.dumps(MACS).encode(), rollout=ROLLOUT)
        plan = asdict(cut) | {"product": product, "release_id": drop.release_id}
        # Functions at work on other releases read all plans, so none may be there half written.
        written = self._folder / f"{product}.plan"
        written.write_text(json.dumps(plan))
        written.rename(written.with_suffix(".plan.json"))
        uploads = []
        # One after the other, so that the calls of a release are the same each time.
        for member in MEMBERS:
            uploads += self._pipeline.drop(f"{product}/app", drop, member)
            ends = self._pipeline.settle(uploads, seconds=240)
        if again and any(end.status != "SUCCEEDED" for end in ends):
            uploads += self._pipeline.drop(f"{product}/app", drop)
            self._pipeline.settle(uploads, seconds=240)
        return Released(cut, product, drop, uploads, (self._folder / f"{product}.died").exists())

    def cuts(self):
        """Every place where a stage can die, found by a release that is not cut."""
        whole = self.release(NOWHERE)
        assert self.wrongs(whole) == []
        names = {stage: (self._folder / f"{whole.product}.{stage}.calls").read_text() for stage in STAGES}
        for stage, name in CALLS_AMONG_OTHERS.items():
            assert name in names[stage], f"{stage} is not cut at {name}, but at\n{names[stage]}"
        calls = {stage: len(listed.splitlines()) for stage, listed in names.items()}
        return [
            Cut(stage, call, moment)
            for stage in STAGES
            for call, moment in itertools.product(range(1, calls[stage] + 1), ("before", "after"))
        ]

    def wrongs(self, released):
        """What is not as it must be after a release has come to its end."""
        return [f"{released.product}, {released.cut}: {wrong}" for wrong in self._wrongs(released)]

    def _wrongs(self, released):
        product, release_id = released.product, released.drop.release_id
        states = [(row["release_id"], row["state"]) for row in self._pipeline.releases(product)]
        if states != [(release_id, "published")]:
            yield f"releases are {states}"
        told = Counter(message.topic.rsplit("/", 1)[1] for message in self._pipeline.heard(release_id))
        if told.keys() != set(MACS) or max(told.values()) > 2:
            yield f"told were {told}"
        batches = [{mac for mac in MACS if in_cohort(release_id, mac, 50) is is_first} for is_first in (True, False)]
        repeated = {mac for mac, times in told.items() if times > 1}
        if not any(repeated <= batch for batch in batches):
            yield f"more than one batch was repeated: {told}"
        dropped = {(upload.key.removeprefix("inbox/"), upload.version_id) for upload in released.uploads}
        if self._pipeline.origins(f"archive/{product}/") != dropped:
            yield "not everything that was dropped is archived"
        if left := self._pipeline.objects(f"inbox/{product}/") + self._pipeline.objects(f"rejected/{product}/"):
            yield f"left over are {left}"
        # Each execution stores the bytes that it checked, under a key of their digest.
        if len(images := {stored.key for stored in self._pipeline.objects(f"releases/{product}/")}) != 1:
            yield f"images are {images}"


def test_release_survives_the_death_of_every_stage_at_every_call(pipeline, sweep, proving, proof):
    every_cut = sweep.cuts()
    cuts = every_cut if proving else every_cut[::SAMPLE]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        released = list(pool.map(sweep.release, cuts))
        with pipeline.without_retries():
            released += pool.map(functools.partial(sweep.release, again=True), cuts)
    wrongs = [sweep.wrongs(release) for release in released if release.has_died]
    # A rollout is looked at more or less often, so the last of its calls are not always made.
    assert len(wrongs) > 0.75 * len(released)
    print(f"{len(wrongs)} deaths at {len(cuts)} of {len(every_cut)} cut points, fixed by retries or dropping again")  # noqa: T201
    proof("cuts", "deaths of the pipeline's stages", tried=len(wrongs), withstood=wrongs.count([]))
    assert [wrong for found in wrongs for wrong in found] == []
