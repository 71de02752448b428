// Questions to the server, and its arrays.

const latest = new Map();

// An answer of false is out of date: the same question has been asked again since.
// Questions with another key do not replace each other.
export async function ask(question, content = {}, key = question) {
  const number = (latest.get(key) ?? 0) + 1;
  latest.set(key, number);
  const answer = await send(`ask/${question}`, JSON.stringify(content));
  return latest.get(key) === number && answer;
}

export const upload = (file) => send("upload", file);

async function send(address, body) {
  let response;
  try {
    response = await fetch(address, { method: "POST", body });
  } catch {
    throw new Error("convjax explore does not answer: is it still running?");
  }
  const answer = response.headers.get("content-type")?.startsWith("application/json") ? await response.json() : {};
  if (!response.ok) throw new Error(answer.error ?? `the server failed (${response.status}): its terminal says why`);
  return answer;
}

// Returns {height, width, channels, at(row, column, channel)}; a vector is an image of one pixel.
export function decode({ shape, data }) {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const values = new Float32Array(bytes.buffer);
  const [height, width, channels] = shape.length === 3 ? shape : shape.length === 2 ? [...shape, 1] : [1, 1, ...shape];
  return { height, width, channels, values, at: (row, column, channel = 0) => values[(row * width + column) * channels + channel] };
}
