"""The state machine's own promises."""

import random
import re


def all_states(states):
    for name, state in states.items():
        yield name, state
        if "ItemProcessor" in state:
            yield from all_states(state["ItemProcessor"]["States"])


def test_every_task_retries_alike(state_machine):
    retries = {name: state["Retry"] for name, state in all_states(state_machine["States"]) if state["Type"] == "Task"}
    assert len(retries) > 10
    assert all(retry == retries["ValidateSignature"] for retry in retries.values())


def test_retries_outlast_an_outage_of_five_minutes(state_machine):
    # With full jitter a wait is between 0 and the delay:
    # https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
    _, retry = state_machine["States"]["ValidateSignature"]["Retry"]
    assert retry["JitterStrategy"] == "FULL"
    delays = [
        min(retry["IntervalSeconds"] * retry["BackoffRate"] ** attempt, retry["MaxDelaySeconds"])
        for attempt in range(retry["MaxAttempts"])
    ]
    dice = random.Random(1)  # noqa: S311 - no secret
    outlasted = sum(sum(dice.uniform(0, delay) for delay in delays) > 300 for _ in range(2000))
    assert outlasted > 0.99 * 2000


def test_nothing_is_caught_so_that_a_redrive_continues_where_it_broke(state_machine):
    for name, state in all_states(state_machine["States"]):
        assert "Catch" not in state, name
        assert state["Type"] != "Fail", name


def test_every_state_is_reachable_and_every_transition_leads_somewhere(state_machine):
    states = state_machine["States"]
    reached, ahead = set(), [state_machine["StartAt"]]
    while ahead:
        name = ahead.pop()
        if name in reached:
            continue
        reached.add(name)
        state = states[name]
        ahead += [state[key] for key in ("Next", "Default") if key in state]
        ahead += [choice["Next"] for choice in state.get("Choices", [])]
    assert reached == set(states)


def test_lambda_tasks_have_a_timeout(state_machine):
    tasks = {name: state for name, state in all_states(state_machine["States"]) if is_function(state)}
    assert len(tasks) > 10
    assert [name for name, state in tasks.items() if state.get("TimeoutSeconds", 901) > 900] == []


def is_function(state):
    return "FunctionArn" in state.get("Resource", "")


def test_concurrency_of_batches_is_what_the_publishing_function_divides_by(state_machine, resources):
    variables = resources["PublishMqttFunction"]["Properties"]["Environment"]["Variables"]
    assert int(variables["PUBLISH_CONCURRENCY"]) == state_machine["States"]["PublishBatches"]["MaxConcurrency"]


def test_placeholders_are_all_substituted(state_machine, resources, project):
    source = (project / "statemachine" / "release_pipeline.asl.yaml").read_text()
    placeholders = set(re.findall(r"\$\{(\w+)\}", source))
    assert placeholders == set(resources["ReleasePipeline"]["Properties"]["DefinitionSubstitutions"])
