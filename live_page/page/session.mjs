/**
 * One stream of the server, as this page takes part in it: what it sends, what it is shown, and
 * what the user wants of it. Knows nothing of buttons.
 */
import { Connection } from "./connection.mjs";
import { H264Codec } from "./h264.mjs";
import { JpegCodec } from "./jpeg.mjs";
import { Receiver } from "./receiver.mjs";
import { Sender } from "./sender.mjs";
import { fedHere } from "./words.mjs";

export class Session extends EventTarget {
  #next = 1;
  /** By the number of a request: the setting or command it was. */
  #asked = new Map();
  role = "watch";
  status = null;
  mjpg = null;
  /** How pictures travel, both ways: "jpeg" or "h264". */
  codec = "jpeg";
  /** Whether the user wants this page to feed the stream. */
  wanted = false;

  /**
   * Events: `changed`, `settings`, `applied`, `refused` (an error, with `asked`, what it answers).
   * `input` and `result` are canvases.
   */
  constructor(stream, token, input, result) {
    super();
    this.stream = stream;
    this.connection = new Connection({ stream, role: "watch", codecs: ["jpeg"] }, token);
    const deliver = (message) => this.connection.send(message);
    this.codecs = { jpeg: new JpegCodec(), h264: new H264Codec() };
    this.sender = new Sender(input, this.codecs.jpeg, deliver);
    this.receiver = new Receiver(result, this.codecs.jpeg, deliver);
    this.#listen();
  }

  open() {
    this.connection.open();
  }

  /** Whether frames go out now. */
  get sending() {
    return this.sender.active;
  }

  /** Start, pause or resume, whichever comes next. */
  startOrPause() {
    const state = this.status?.state;
    if (state === "running" && (this.sending || !fedHere(this.status))) return this.command("pause");
    this.#want(true);
    if (state === "paused") this.command("resume");
    else if (state === "stopped" || state === "waiting") this.command("start");
  }

  stop() {
    this.#want(false);
    this.command("stop");
  }

  /** Prefer a codec, from the next connection on, which is made at once. */
  prefer(codec) {
    this.connection.hello.codecs = codec === "jpeg" ? ["jpeg"] : [codec, "jpeg"];
    this.connection.reopen();
  }

  set(name, value) {
    this.#ask(name, { set: name, value });
  }

  command(name) {
    this.#ask(name, { command: name });
  }

  #ask(name, message) {
    const id = this.#next++;
    if (this.connection.send({ ...message, id })) this.#asked.set(id, name);
  }

  #want(wanted) {
    this.wanted = wanted;
    // After a reconnection the same is asked for at once.
    this.connection.hello.role = wanted ? "send" : "watch";
    if (wanted !== (this.role === "send")) this.connection.send({ role: this.connection.hello.role });
    this.#refresh();
  }

  #listen() {
    const on = (name, act) =>
      this.connection.addEventListener(name, ({ detail }) => {
        act(detail);
        this.#refresh();
      });
    on("state", (state) => state === "open" || this.sender.begin(0));
    on("welcome", (message) => this.#welcomed(message));
    on("role", ({ role }) => this.#takeRole(role));
    on("status", ({ status }) => (this.status = status));
    on("settings", ({ settings }) => this.#tell("settings", settings));
    on("applied", (message) => this.#answered(message, "applied"));
    on("done", (message) => this.#answered(message, "done"));
    on("error", (message) => this.#answered(message, "refused"));
    this.connection.addEventListener("credits", ({ detail }) => this.sender.grant(detail.credits));
    this.connection.addEventListener("frame", ({ detail }) => this.receiver.receive(detail));
  }

  #welcomed({ role, credits, mjpg, codec }) {
    this.codec = codec;
    this.sender.codec = this.receiver.codec = this.codecs[codec];
    this.codecs[codec].restart();
    this.mjpg = mjpg && new URL(mjpg, location.href).href;
    this.#asked.clear();
    this.#takeRole(role);
    this.sender.begin(credits);
  }

  #takeRole(role) {
    this.role = role;
    this.receiver.ownClock = role === "send";
  }

  #answered(message, event) {
    const asked = this.#asked.get(message.id);
    this.#asked.delete(message.id);
    this.#tell(event, { ...message, asked });
  }

  /** Frames are of use only to a stream that runs, and only from its one sender. */
  #refresh() {
    const runs = this.connection.state === "open" && this.status?.state === "running";
    const active = this.wanted && runs && this.role === "send" && fedHere(this.status);
    if (active !== this.sender.active) this.sender.active = active;
    this.#tell("changed");
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
