/** The live page: puts its parts together. */
import { CodecChoice } from "./codec_choice.mjs";
import { FramingControls } from "./framing_controls.mjs";
import { bindKeys } from "./keyboard.mjs";
import { Notices } from "./notices.mjs";
import { insecure, outdated } from "./reasons.mjs";
import { Session } from "./session.mjs";
import { SettingsControls } from "./settings_controls.mjs";
import { SourcePicker } from "./source_picker.mjs";
import { showStatistics } from "./statistics_strip.mjs";
import { chosenStream, listStreams } from "./streams.mjs";
import { StreamButtons } from "./stream_buttons.mjs";
import { StreamState } from "./stream_state.mjs";
import { View } from "./view.mjs";

const FIGURES_MS = 250;
const element = (id) => document.getElementById(id);

const notices = new Notices(element("notices"));
const view = new View();
const framing = new FramingControls(() => picker.redraw());
const picker = new SourcePicker(element("input"), notices, () => framing.framing);
const token = document.querySelector('meta[name="live2diff-token"]').content;
const streams = await listStreams(token);
/** For the tests, and for whoever opens the browser's console. */
export const session = new Session(chosenStream(streams), token, element("input"), element("result"));
const controls = new SettingsControls((name, value) => session.set(name, value));
const buttons = new StreamButtons(session, picker, notices);
const state = new StreamState(session, picker, notices);
const codec = new CodecChoice(session);

picker.addEventListener("picture", ({ detail }) => session.sender.offer(detail));
picker.addEventListener("changed", () => refresh());
session.addEventListener("changed", () => refresh());
session.addEventListener("settings", ({ detail }) => controls.open(detail));
session.addEventListener("applied", ({ detail }) => controls.applied(detail));
session.addEventListener("refused", ({ detail }) => {
  state.refused(detail);
  if (detail.asked) controls.restore(detail.asked);
});

function refresh() {
  const { width, height } = session.status ?? {};
  if (width && height) {
    picker.resize(width, height);
    view.shape(width, height);
  }
  buttons.refresh();
  state.refresh();
  element("mjpg").value = session.mjpg ?? "";
  element("copy").disabled = !session.mjpg;
}

function help() {
  element("help-dialog").showModal();
}

bindKeys({
  " ": () => buttons.press("start"),
  s: () => buttons.press("stop"),
  c: () => buttons.press("cut"),
  r: () => buttons.press("record"),
  p: () => element("prompt").focus(),
  v: () => view.next(),
  f: () => view.fullScreen(),
  m: () => framing.mirror(),
  t: () => framing.turn(),
  "?": help,
});
element("help").addEventListener("click", help);
element("copy").addEventListener("click", async () => {
  element("mjpg").select();
  await navigator.clipboard?.writeText(session.mjpg);
  controls.say("The address is copied.");
});

const problem = outdated() ?? insecure();
if (problem) notices.show("source", { ...problem, urgent: true });
setInterval(
  () => showStatistics(session.status, session.sender, session.receiver, performance.now()),
  FIGURES_MS,
);
refresh();
await codec.offer();
session.open();
