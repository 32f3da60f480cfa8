"""What a video is made from, named by the graph: any setting above counts, numbers do not."""

import copy

import pytest

from live2diff_core.host.identity import graph_identity


@pytest.fixture
def name():
    return graph_identity


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


GRAPH = {
    "1": node("Checkpoint", file="sd15"),
    "2": node("FreeU", model=["1", 0], b1=1.3),
    "3": node("Text", clip=["1", 1], text="a painting"),
    "4": node("LoadVideo", file="clip.mp4"),
    "5": node("Stream", model=["2", 0], positive=["3", 0], video=["4", 0], seed=3),
    "6": node("Save", video=["5", 0], prefix="out"),
    "7": node("Checkpoint", file="sd15"),
}


def changed(change):
    graph = copy.deepcopy(GRAPH)
    change(graph)
    return graph


def renumbered():
    """The same nodes, in another order, under other numbers."""
    links = {number: f"{60 - int(number)}:{number}" for number in GRAPH}

    def moved(value):
        return [links[value[0]], value[1]] if isinstance(value, list) else value

    return {
        links[number]: node(
            GRAPH[number]["class_type"],
            **{name: moved(value) for name, value in reversed(GRAPH[number]["inputs"].items())},
        )
        for number in reversed(GRAPH)
    }, links["5"]


def test_numbers_and_order_of_nodes_do_not_count(name):
    other, stream = renumbered()
    assert name(other, stream, ("video",)) == name(GRAPH, "5", ("video",))


def test_two_nodes_that_are_alike_are_one(name):
    """As after copying a loader: the same file is loaded."""
    graph = changed(lambda g: g["3"]["inputs"].update(clip=["7", 1]))
    assert name(graph, "5") == name(GRAPH, "5")


CHANGES = {
    "setting": lambda g: g["2"]["inputs"].update(b1=1.4),
    "setting far above": lambda g: g["1"]["inputs"].update(file="other"),
    "type of a setting": lambda g: g["2"]["inputs"].update(b1="1.3"),
    "another setting": lambda g: g["2"]["inputs"].update(b2=1.0),
    "name of an input": lambda g: g["2"]["inputs"].update(b2=g["2"]["inputs"].pop("b1")),
    "class": lambda g: g["2"].update(class_type="FreeU_V2"),
    "node in between": lambda g: g["5"]["inputs"].update(model=["1", 0]),
    "node more in between": lambda g: g.update(
        {"8": node("LoRA", model=["1", 0]), "2": node("FreeU", model=["8", 0], b1=1.3)}
    ),
    "output": lambda g: g["3"]["inputs"].update(clip=["1", 0]),
    "output of the last node": lambda g: g["5"]["inputs"].update(model=["2", 1]),
    "inputs exchanged": lambda g: g["5"]["inputs"].update(model=["3", 0], positive=["2", 0]),
    "link taken away": lambda g: g["5"]["inputs"].pop("positive"),
    "link made a setting": lambda g: g["2"]["inputs"].update(model=["gone", 0]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_above_is_another_name(name, what):
    assert name(changed(CHANGES[what]), "5", ("video",)) != name(GRAPH, "5", ("video",))


ELSEWHERE = {
    "below": lambda g: g["6"]["inputs"].update(prefix="other"),
    "beside": lambda g: g["7"]["inputs"].update(file="other"),
    "own setting": lambda g: g["5"]["inputs"].update(seed=4),
    "left out": lambda g: g["4"]["inputs"].update(file="other.mp4"),
    "title": lambda g: g["2"].update(_meta={"title": "mine"}),
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_what_is_not_above_does_not_count(name, where):
    """The node's own settings and the video are named elsewhere, by content."""
    assert name(changed(ELSEWHERE[where]), "5", ("video",)) == name(GRAPH, "5", ("video",))


def test_what_is_left_out_counts_otherwise(name):
    assert name(changed(ELSEWHERE["left out"]), "5") != name(GRAPH, "5")


def test_lists_that_are_no_links_are_settings(name):
    one, other = (
        changed(lambda g, values=values: g["2"]["inputs"].update(b1=values))
        for values in ([1, 2], [1, 3])
    )
    assert name(one, "5") != name(other, "5")


def test_loops_end(name):
    """The host refuses them; they must not hang it."""
    itself = changed(lambda g: g["2"]["inputs"].update(model=["2", 0]))
    around = changed(lambda g: g["1"]["inputs"].update(model=["5", 0]))
    names = {name(graph, "5", ("video",)) for graph in (GRAPH, itself, around)}
    assert len(names) == 3


@pytest.mark.parametrize("prompt, node_id", [(None, "5"), ({}, "5"), (GRAPH, None), (GRAPH, "99")])
def test_without_a_graph_it_is_unknown(name, prompt, node_id):
    assert name(prompt, node_id) == "unknown"


def test_the_name_of_a_node_without_links_is_that_of_any_other(name):
    assert name(GRAPH, "1") == name(GRAPH, "4") != "unknown"
