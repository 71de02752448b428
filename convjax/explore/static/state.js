// What is chosen on the page; it outlives a reload.

const KEY = `convjax ${location.pathname}`;
const start = {
  image: "example0",
  tab: "convolution",
  convolution: { name: "Sobel x", kernel: null, channel: "grey", side: 64, stride: 1, padding: "SAME", dilation: 1 },
  pooling: { of: "image", kind: "max", window: 2, stride: 2, padding: "VALID" },
  norm: { mode: "training", steps: 5, scale: 1, bias: 0 },
  network: { depth: 1 },
};

let kept = {};
try {
  kept = JSON.parse(sessionStorage.getItem(KEY)) ?? {};
} catch { /* nothing was kept, or it may not be read */ }
export const state = { ...start, ...kept };

export function keep() {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(state));
  } catch { /* then a reload starts afresh */ }
}

// What a convolution's question holds: its name is the page's own affair.
export const convolution = () => (({ name, ...rest }) => rest)(state.convolution);

// Keeps a form's fields in state[section]; calls back after each valid change.
export function bind(form, section, changed) {
  const own = state[section];
  for (const field of form.elements) {
    if (!field.name) continue;
    if (field.name in own) field.value = own[field.name];
    show(field);
    field.addEventListener("input", () => {
      show(field);
      if (!field.checkValidity() || field.value === "") return;
      const number = /^-?[\d.]+$/.test(field.value);
      own[field.name] = number ? Number(field.value) : field.value;
      changed(field.name);
      keep();
    });
  }
  form.addEventListener("submit", (event) => event.preventDefault());
}

function show(field) {
  if (field.type === "range") field.nextElementSibling.value = field.value;
}
