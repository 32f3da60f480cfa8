"""The live page's pure parts, in the browser: header, slot, meters, framing, sender."""

import struct

import pytest
from echo_server import EchoServer

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def modules(browser):
    """A page from which `import` reaches the live page's modules."""
    server = EchoServer()
    server.start()
    page = browser.new_page()
    page.goto(f"{server.url}/page/icon.svg")
    yield page
    page.close()
    server.close()


def test_header_is_the_protocols(modules):
    packed = modules.evaluate("""async () => {
      const { pack } = await import("/live2diff/live/page/packets.mjs");
      const picture = new Uint8Array([255, 216, 7]).buffer;
      return [...new Uint8Array(pack({kind: 1, sequence: 70000, captured: 1234.5}, picture))];
    }""")
    header = struct.unpack("<BBHIdiIff", bytes(packed[:32]))
    assert header == (1, 1, 0, 70000, 1234.5, -1, 0, 0.0, 0.0)
    assert packed[32:] == [255, 216, 7]


def test_what_comes_from_the_server_is_read(modules):
    sent = struct.pack("<BBHIdiIff", 1, 1, 5, 9, 17.25, -1, 3, 31.5, 4.5) + b"\xff\xd8"
    read = """async bytes => {
      const { unpack } = await import("/live2diff/live/page/packets.mjs");
      const frame = unpack(new Uint8Array(bytes).buffer);
      return {...frame, picture: [...frame.picture]};
    }"""
    assert modules.evaluate(read, list(sent)) == {
        "kind": 1,
        "flags": 5,
        "sequence": 9,
        "captured": 17.25,
        "frame": -1,
        "number": 3,
        "serverMs": 31.5,
        "codecMs": 4.5,
        "picture": [255, 216],
    }
    for broken in (sent[:32], b"", b"\x02" + sent[1:]):
        with pytest.raises(Exception, match="RangeError"):
            modules.evaluate(read, list(broken))


def test_the_newest_frame_wins(modules):
    assert modules.evaluate("""async () => {
      const { NewestSlot } = await import("/live2diff/live/page/newest_slot.mjs");
      const slot = new NewestSlot();
      for (const frame of [1, 2, 3]) slot.put(frame);
      return [slot.replaced, slot.take(), slot.take(), slot.full];
    }""") == [2, 3, None, False]


def test_rates_and_quantiles(modules):
    rates, quantiles = modules.evaluate("""async () => {
      const { RateMeter, Quantiles } = await import("/live2diff/live/page/meters.mjs");
      const meter = new RateMeter(1000), values = new Quantiles(100);
      const rates = [meter.rate(0)];
      for (let time = 0; time <= 2000; time += 40) meter.add(time);
      rates.push(meter.rate(2000), meter.rate(2500), meter.rate(9000));
      const empty = values.at(0.5);
      // The first fifty are forgotten.
      for (let value = -49; value <= 100; value++) values.add(value);
      return [rates, [empty, values.at(0), values.at(0.5), values.at(0.95), values.at(1)]];
    }""")
    assert rates == [0, 25, 25, 0]
    assert quantiles == [None, 1, 50, 95, 100]


# What the corners of a 4x2 picture (red, green; blue, white) become in a square frame.
CORNERS = """async framing => {
  const { drawFramed, WHOLE } = await import("/live2diff/live/page/framing.mjs");
  const source = new OffscreenCanvas(4, 2), context = source.getContext("2d");
  [["#f00", 0, 0], ["#0f0", 2, 0], ["#00f", 0, 1], ["#fff", 2, 1]].forEach(([colour, x, y]) => {
    context.fillStyle = colour;
    context.fillRect(x, y, 2, 1);
  });
  const frame = new OffscreenCanvas(40, 40), drawn = frame.getContext("2d");
  drawn.imageSmoothingEnabled = false;
  drawFramed(drawn, source, {width: 4, height: 2}, {...WHOLE, ...framing});
  const names = {"255,0,0": "R", "0,255,0": "G", "0,0,255": "B", "255,255,255": "W"};
  return [[2, 2], [37, 2], [2, 37], [37, 37]].map(([x, y]) =>
    names[[...drawn.getImageData(x, y, 1, 1).data].slice(0, 3).join()] ?? "-").join("");
}"""


@pytest.mark.parametrize(
    ("framing", "corners"),
    [
        ({}, "RGBW"),
        ({"mirror": True}, "GRWB"),
        ({"turn": 180}, "WBGR"),
        ({"turn": 90}, "BRWG"),
        ({"turn": 270}, "GWRB"),
        ({"fit": "fit"}, "----"),
        ({"x": 0}, "RRBB"),
        ({"x": 1}, "GGWW"),
        ({"zoom": 4, "x": 0, "y": 0}, "RRRR"),
        ({"zoom": 4, "x": 1, "y": 1}, "WWWW"),
    ],
)
def test_framing(modules, framing, corners):
    assert modules.evaluate(CORNERS, framing) == corners


def test_sender_spends_a_credit_per_frame_and_never_queues(modules):
    told = modules.evaluate("""async () => {
      const { Sender } = await import("/live2diff/live/page/sender.mjs");
      const { unpack } = await import("/live2diff/live/page/packets.mjs");
      const sent = [];
      const codec = {encode: async () => ({kind: 1, picture: new ArrayBuffer(1)})};
      const sender = new Sender(null, codec, message => sent.push(unpack(message)));
      const rest = () => new Promise(done => setTimeout(done, 5));
      sender.begin(2);
      sender.offer(1);             // not active: only shown
      await rest();
      sender.active = true;
      for (const time of [2, 3, 4, 5, 6]) { sender.offer(time); await rest(); }
      const before = sent.length;
      sender.grant(1);             // goes to the newest
      await rest();
      sender.active = false;
      sender.grant(1);
      await rest();
      return [before, sent.map(f => f.captured), sent.map(f => f.sequence), sender.skipped,
              sender.sent, sender.credits];
    }""")
    assert told == [2, [2, 3, 6], [1, 2, 3], 2, 3, 1]


def test_a_frame_encoded_for_a_lost_connection_is_not_sent_on_the_next(modules):
    told = modules.evaluate("""async () => {
      const { Sender } = await import("/live2diff/live/page/sender.mjs");
      let finish;
      const codec = {encode: () => new Promise(done => { finish = done; })};
      let sent = 0;
      const sender = new Sender(null, codec, () => ++sent);
      sender.begin(1);
      sender.active = true;
      sender.offer(1);
      sender.begin(1);
      finish({kind: 1, picture: new ArrayBuffer(1)});
      await new Promise(done => setTimeout(done, 5));
      return [sent, sender.sent, sender.credits];
    }""")
    assert told == [0, 0, 1]
