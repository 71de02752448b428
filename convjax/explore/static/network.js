// The image's way through a network, part by part, and where a unit of it looks.

import { ask, decode } from "./api.js";
import { make, outline, paint, rangeOf, say, shades, short } from "./draw.js";
import { bind, state } from "./state.js";

const AT_ONCE = 16, MAP = 72, FIGURE = 124;
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

export function start({ network, depths }, report) {
  const find = (id) => document.getElementById(id);
  if (!network) return { refresh() {}, draw() {} };
  find("no-network").hidden = true;
  find("walk").hidden = false;
  const form = document.querySelector("#network form");
  const levels = ["at its parts", "inside of its parts", "deeper still"];
  form.elements.depth.append(...levels.slice(0, depths).map((label, i) => make("option", { value: i + 1, textContent: label })));
  bind(form, "network", refresh);
  let input, chosen, serial = 0;
  const watch = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      target.load();
    }
  }, { rootMargin: "300px" });

  async function refresh() {
    choose(null);
    await report(async () => {
      const asked = { image: state.image, depth: state.network.depth };
      const answer = await ask("network", asked);
      if (!answer) return;
      serial++;
      input = decode(answer.input);
      paint(find("network-input"), input, shades(1), 192 / Math.max(input.height, input.width));
      document.querySelector("#walk figcaption").textContent = `${network.model} of ${network.name} takes ${network.image.join(" × ")}`;
      classes(answer.classes);
      watch.disconnect();
      find("parts").replaceChildren(...answer.parts.map((part) => section(part, asked)));
    });
  }

  function classes(found) {
    find("classes").tBodies[0].replaceChildren(...found.map(({ name, probability }) => {
      const bar = make("i");
      bar.style.setProperty("--share", probability);
      const row = make("tr", {}, make("th", { scope: "row", textContent: name, title: name }), make("td", {}, bar), make("td", { textContent: `${(100 * probability).toFixed(2)} %` }));
      row.dataset.probability = probability;
      return row;
    }));
  }

  function section(part, asked) {
    const maps = make("div", { className: "maps" }), flat = part.shape.length === 1, number = serial;
    const words = `${part.shape.join(" × ")}, ${short(100 * part.zero, 0)} % zeros`;
    const element = make("section", { className: "part" }, make("header", {}, make("h3", { textContent: part.name }), make("p", { textContent: words })), maps);
    element.load = (first = 0) => report(async () => {
      const answer = await ask(`maps`, { ...asked, part: part.name, first }, `${part.name} ${first}`);
      if (!answer || number !== serial) return;
      maps.querySelector(".more")?.remove();
      const array = decode(answer.maps), range = rangeOf(array.values);
      if (flat) return maps.append(vector(part, array, range, asked));
      const buttons = Array.from({ length: array.channels }, (_, i) => tile(part, array, range, first, i, asked));
      maps.append(...buttons);
      const next = first + AT_ONCE;
      if (next < part.shape.at(-1)) {
        maps.append(make("button", { className: "more", type: "button", textContent: `${part.shape.at(-1) - next} more`, onclick: () => element.load(next) }));
      }
      if (first) buttons[0].focus();
    });
    watch.observe(element);
    return element;
  }

  function tile(part, array, range, first, i, asked) {
    const canvas = make("canvas");
    paint(canvas, array, range, MAP / Math.max(array.height, array.width), { channel: i });
    const button = make("button", { type: "button" }, canvas);
    button.setAttribute("aria-label", `${part.name}, channel ${first + i}`);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => choose({ part: part.name, channel: first + i, array, range, i, button, asked }));
    return button;
  }

  function vector(part, array, range) {
    const canvas = make("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${part.name}: ${array.channels} values from ${short(Math.min(...array.values))} to ${short(Math.max(...array.values))}`);
    const columns = Math.min(array.channels, 64), rows = Math.ceil(array.channels / columns), padded = new Float32Array(columns * rows);
    padded.set(array.values);
    paint(canvas, { height: rows, width: columns, channels: 1, values: padded }, range, Math.min(24, 320 / columns));
    return canvas;
  }

  function choose(unit) {
    chosen?.button.setAttribute("aria-pressed", "false");
    chosen = unit;
    chosen?.button.setAttribute("aria-pressed", "true");
    find("unit").hidden = !chosen;
    document.querySelector(".way").classList.toggle("chosen", Boolean(chosen));
    if (chosen) look(null);
  }

  function close() {
    const { button } = chosen;
    choose(null);
    button.focus();
  }

  async function look(place) {
    const { part, channel, asked } = chosen, panel = find("unit");
    await report(async () => {
      const answer = await ask("patch", { ...asked, part, channel, unit: place });
      if (answer) unit(panel, answer);
    });
  }

  function unit(panel, { unit: [row, column], value, box, gradient }) {
    const { part, channel, array, range, i } = chosen;
    const focused = panel.contains(document.activeElement);
    const map = make("canvas", { tabIndex: 0 }), image = make("canvas"), patch = make("canvas");
    map.setAttribute("role", "application");
    map.setAttribute("aria-label", `${part}, channel ${channel}: unit at row ${row}, column ${column}. Arrow keys move.`);
    outline(paint(map, array, range, FIGURE / Math.max(array.height, array.width), { channel: i }), column, row, 1, 1);
    const move = (r, c) => look([Math.min(Math.max(r, 0), array.height - 1), Math.min(Math.max(c, 0), array.width - 1)]);
    map.addEventListener("click", (event) => move(Math.floor((event.offsetY / map.clientHeight) * array.height), Math.floor((event.offsetX / map.clientWidth) * array.width)));
    map.addEventListener("keydown", (event) => {
      const step = STEPS[event.key];
      if (!step) return;
      event.preventDefault();
      move(row + step[0], column + step[1]);
    });
    const context = paint(image, input, shades(1), FIGURE / Math.max(input.height, input.width));
    const figure = (title, canvas) => make("figure", {}, make("figcaption", { textContent: title }), canvas);
    const children = [
      make("h2", { textContent: `${part}, channel ${channel}` }),
      make("button", { className: "button close", type: "button", textContent: "×", ariaLabel: "Close", onclick: close }),
      make("p", { textContent: `Unit at row ${row}, column ${column}: activation ${short(value, 3)}.` }),
    ];
    const [top, left, height, width] = box, steepness = decode(gradient), slope = make("canvas");
    const silent = steepness.values.every((each) => each === 0) ? " Here it is silent: no pixel changes it." : "";
    const words = `It looks at ${height} × ${width} pixels, rows ${top} to ${top + height - 1}, columns ${left} to ${left + width - 1}.${silent}`;
    outline(context, left, top, width, height);
    paint(patch, crop(input, box), shades(1), FIGURE / Math.max(height, width));
    paint(slope, steepness, rangeOf(steepness.values), FIGURE / Math.max(input.height, input.width));
    for (const [canvas, label] of [[image, words], [patch, "The patch that it looks at"], [slope, "How much each pixel changes it"]]) {
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", label);
    }
    children.push(make("p", { className: "field", textContent: words }), figure("Feature map", map), figure("In the image", image), figure("The patch", patch), figure("Gradient, absolute", slope));
    panel.replaceChildren(...children);
    if (focused) map.focus();
    say(`${children[2].textContent} ${words}`);
  }

  return { refresh, draw() {} };
}

function crop(array, [top, left, height, width]) {
  const values = new Float32Array(height * width * array.channels);
  for (let row = 0; row < height; row++) {
    const from = ((top + row) * array.width + left) * array.channels;
    values.set(array.values.subarray(from, from + width * array.channels), row * width * array.channels);
  }
  return { height, width, channels: array.channels, values };
}
