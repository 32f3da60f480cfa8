/** Which streams the server has, and which of them this page shows: `?stream=NAME`. */
const USUAL = "live";

/** The names of the server's streams; none when it does not answer. */
export async function listStreams(token) {
  try {
    const address = new URL("live/streams", document.baseURI);
    const answer = await fetch(address, { headers: { "X-Live2Diff-Token": token } });
    const { streams } = await answer.json();
    return streams.map(({ name }) => name);
  } catch (error) {
    console.info("The list of streams did not come:", error.message);
    return [];
  }
}

/** The stream to show; fills the list in the top bar, which opens another one. */
export function chosenStream(names) {
  const asked = new URLSearchParams(location.search).get("stream");
  const chosen = asked || names[0] || USUAL;
  const list = document.getElementById("stream");
  list.replaceChildren(...[...new Set([...names, chosen])].map((name) => new Option(name, name)));
  list.value = chosen;
  list.addEventListener("change", () => {
    location.search = new URLSearchParams({ stream: list.value });
  });
  return chosen;
}
