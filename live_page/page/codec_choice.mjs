/** JPEG or H.264, as the user prefers and this browser can. */
import { H264Codec } from "./h264.mjs";
import { recall, remember } from "./memory.mjs";

export class CodecChoice {
  constructor(session) {
    this.session = session;
    this.list = document.getElementById("codec");
    this.list.addEventListener("change", () => {
      remember("codec", this.list.value);
      session.prefer(this.list.value);
    });
    // The server may have JPEG only.
    session.addEventListener("changed", () => {
      if (session.connection.state === "open") this.list.value = session.codec;
    });
  }

  /** List what there is, and prefer what was chosen last time. */
  async offer() {
    if (!(await H264Codec.supported())) return;
    this.list.append(new Option("H.264, for slow networks", "h264"));
    this.list.value = recall("codec", "jpeg");
    this.session.prefer(this.list.value);
  }
}
