// The convolution: a kernel that is chosen or typed, and its products with the window.

import { ask, decode } from "./api.js";
import { make, rangeOf, shades, short } from "./draw.js";
import { bind, convolution, keep, state } from "./state.js";
import { imageRange, numbers, sign, Stepper } from "./stepper.js";

const OWN = "My own";
const CHANNELS = { grey: ["grey"], red: ["red"], green: ["green"], blue: ["blue"], all: ["red", "green", "blue"] };

export function start({ kernels, sides }, report) {
  const root = document.getElementById("convolution"), form = root.querySelector("form");
  form.elements.name.append(...kernels.map(({ name }) => make("option", { textContent: name })), make("option", { textContent: OWN }));
  form.elements.side.append(...sides.map((side) => make("option", { value: side, textContent: `at most ${side}` })));
  const own = state.convolution;
  own.kernel ??= kernels.find(({ name }) => name === own.name).kernel;
  form.elements.size.value = own.kernel.length;

  const stepper = new Stepper(root.querySelector(".stepper"), explain);
  let table; // the kernel's numbers, in which somebody may be typing

  bind(form, "convolution", (field) => {
    if (field === "name") {
      own.kernel = kernels.find(({ name }) => name === own.name)?.kernel ?? own.kernel;
      form.elements.size.value = own.kernel.length;
    }
    if (field === "size") {
      own.kernel = resized(own.kernel, own.size);
      rename();
    }
    delete own.size;
    refresh();
  });

  function rename() {
    own.name = OWN;
    form.elements.name.value = OWN;
  }

  async function refresh(typed) {
    const asked = convolution();
    await report(async () => {
      const answer = await ask("convolution", { image: state.image, convolution: asked });
      if (!answer) return;
      if (!typed) table = null;
      const range = { input: imageRange(), output: outputRange(asked, decode(answer.output).values) };
      stepper.show(answer, { ...asked, range });
    });
  }

  function explain(panel, taps, { kernel, output, range }, [row, column]) {
    const names = CHANNELS[taps.length === 3 ? "all" : own.channel];
    const products = taps.map((rows) => rows.map((taps, u) => taps.map(({ value, inside }, v) => ({ value: value * kernel[u][v], inside }))));
    const windows = taps.map((rows, i) => numbers(`window, ${names[i]}`, "window", rows, { range: range.input }));
    const results = products.map((rows) => numbers("products", "products", rows));
    const terms = panel.querySelectorAll(".terms");
    if (table && terms.length === taps.length) {
      for (const [i, term] of terms.entries()) {
        term.querySelector(".window").replaceWith(windows[i]);
        term.querySelector(".products").replaceWith(results[i]);
        if (i > 0) term.querySelector(".kernel").replaceWith(plain(kernel));
      }
    } else {
      table = editable(kernel);
      const rows = windows.map((window, i) => make("div", { className: "terms" }, window, sign("×"), i ? plain(kernel) : table, sign("="), results[i]));
      panel.replaceChildren(...rows, make("p", { className: "result" }), make("p", { className: "hint" }));
    }
    const result = short(output.at(row, column), 4);
    panel.querySelector(".result").replaceChildren(`sum of ${taps.length * kernel.length ** 2} products = `, make("b", { textContent: result }));
    panel.querySelector(".hint").textContent = `Output row ${row}, column ${column}. Point at the output, or move there with the arrow keys (with Shift by 8). The kernel’s numbers can be typed over.`;
    return `row ${row}, column ${column}: ${result}`;
  }

  function editable(kernel) {
    const table = plain(kernel);
    for (const [i, cell] of [...table.querySelectorAll("td")].entries()) {
      const [u, v] = [Math.floor(i / kernel.length), i % kernel.length];
      const input = make("input", { type: "number", step: "any", min: -1000, max: 1000, required: true, value: Number(kernel[u][v].toFixed(4)) });
      input.setAttribute("aria-label", `kernel row ${u}, column ${v}`);
      input.addEventListener("input", () => {
        if (!input.checkValidity()) return;
        own.kernel = own.kernel.map((row, r) => row.map((value, c) => (r === u && c === v ? Number(input.value) : value)));
        rename();
        keep();
        refresh(true);
      });
      cell.replaceChildren(input);
    }
    return table;
  }

  return { refresh, draw: () => stepper.draw() };
}

const plain = (kernel) => numbers("kernel", "kernel", kernel.map((row) => row.map((value) => ({ value }))));

// Kernels that keep brightness give a picture; others, whose values lie around zero, are shown in two colours.
function outputRange({ kernel, channel }, values) {
  const sum = kernel.flat().reduce((a, b) => a + b, 0) * (channel === "all" ? 3 : 1);
  return sum > 0.05 ? shades(sum) : rangeOf(values);
}

function resized(kernel, size) {
  const shift = Math.floor((size - kernel.length) / 2);
  return Array.from({ length: size }, (_, u) => Array.from({ length: size }, (_, v) => kernel[u - shift]?.[v - shift] ?? 0));
}
