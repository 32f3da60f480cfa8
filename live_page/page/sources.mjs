/**
 * Where pictures come from: a camera, a screen or window, a video file, a still picture.
 *
 * A source has `label`, `picture` (what a canvas can draw), `size`, `ended` (a promise), and
 * `close()`. `watch(callback)` calls back with the time of every new picture, in milliseconds of
 * `performance.now()`.
 */
const STILL_INTERVAL_MS = 100;
const FRAMES_PER_SECOND = { ideal: 30 };
const NEVER = new Promise(() => {});

/** A video element as a source: of a camera, a screen, or a file. */
class VideoSource {
  #closed = false;

  constructor(video, label, ended, release) {
    this.picture = video;
    this.label = label;
    this.ended = ended;
    this.release = release;
  }

  get size() {
    return { width: this.picture.videoWidth, height: this.picture.videoHeight };
  }

  watch(callback) {
    const step = (now) => {
      if (this.#closed) return;
      callback(now);
      this.picture.requestVideoFrameCallback(step);
    };
    this.picture.requestVideoFrameCallback(step);
  }

  close() {
    this.#closed = true;
    this.picture.pause();
    this.release();
  }
}

/** A picture that does not move, again and again: a stream goes on as long as frames come. */
class StillSource {
  #timer = 0;

  constructor(picture, label) {
    this.picture = picture;
    this.label = label;
    this.size = { width: picture.width, height: picture.height };
    this.ended = NEVER;
  }

  watch(callback) {
    callback(performance.now());
    this.#timer = setInterval(() => callback(performance.now()), STILL_INTERVAL_MS);
  }

  close() {
    clearInterval(this.#timer);
    this.picture.close();
  }
}

/**
 * Open a camera: the one of this id, else the browser's choice. Asks the user for leave. Of its
 * sizes the one next to the stream's is taken, since a larger one costs time on the way.
 */
export async function openCamera(deviceId, { height }) {
  const chosen = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "user" };
  const size = { width: { ideal: Math.round((height * 4) / 3) }, height: { ideal: height } };
  const video = { frameRate: FRAMES_PER_SECOND, ...size, ...chosen };
  return fromStream(await navigator.mediaDevices.getUserMedia({ video, audio: false }));
}

/** Open a screen, window or tab; the browser lets the user choose. */
export async function openScreen() {
  const video = { frameRate: FRAMES_PER_SECOND };
  return fromStream(await navigator.mediaDevices.getDisplayMedia({ video, audio: false }));
}

/** Open a video file, which is played in a loop, at its own pace and without its sound. */
export async function openVideoFile(file) {
  const address = URL.createObjectURL(file);
  const video = quietVideo();
  video.loop = true;
  video.src = address;
  const source = new VideoSource(video, file.name, NEVER, () => {
    video.removeAttribute("src");
    video.load();
    URL.revokeObjectURL(address);
  });
  return playing(source);
}

/** Open a picture. */
export async function openStill(file) {
  return new StillSource(await createImageBitmap(file), file.name);
}

/** The cameras, as [{id, label}]; without names until the user has allowed one. */
export async function listCameras() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return devices
    .filter((device) => device.kind === "videoinput" && device.deviceId)
    .map(({ deviceId, label }, index) => ({ id: deviceId, label: label || `Camera ${index + 1}` }));
}

async function fromStream(stream) {
  const [track] = stream.getVideoTracks();
  const video = quietVideo();
  video.srcObject = stream;
  // A camera that is unplugged, or sharing that the user stops in the browser's own bar.
  const ended = new Promise((done) => track.addEventListener("ended", done, { once: true }));
  const source = new VideoSource(video, track.label, ended, () => track.stop());
  source.deviceId = track.getSettings().deviceId;
  return playing(source);
}

function quietVideo() {
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  return video;
}

async function playing(source) {
  try {
    await source.picture.play();
  } catch (error) {
    source.close();
    throw error;
  }
  return source;
}
