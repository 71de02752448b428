// Arrays as pictures, and small helpers to build elements.

const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const SIGNED = [[33, 82, 156], [120, 169, 214], [247, 247, 247], [238, 160, 107], [178, 60, 22]];
const GREY = [[0, 0, 0], [255, 255, 255]];

// A range is {low, high, colours}: what the ends of the colours stand for.
export const shades = (high) => ({ low: 0, high, colours: GREY });

export function rangeOf(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low >= 0) return { low: 0, high: high || 1, colours: VIRIDIS };
  const largest = Math.max(-low, high);
  return { low: -largest, high: largest, colours: SIGNED };
}

// Returns the [red, green, blue] of a value.
export function colour({ low, high, colours }, value) {
  const place = Math.min(Math.max((value - low) / (high - low), 0), 1) * (colours.length - 1);
  const i = Math.min(Math.floor(place), colours.length - 2);
  return colours[i].map((a, k) => a + (colours[i + 1][k] - a) * (place - i));
}

// Returns one channel, or three as colours, one canvas pixel each.
function raster(array, range, channel) {
  array.rasters ??= new Map();
  if (!array.rasters.has(channel)) array.rasters.set(channel, painted(array, range, channel));
  return array.rasters.get(channel);
}

function painted(array, range, channel) {
  const canvas = document.createElement("canvas");
  canvas.width = array.width;
  canvas.height = array.height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(array.width, array.height);
  for (let i = 0; i < array.width * array.height; i++) {
    const at = i * array.channels;
    const rgb = channel === undefined && array.channels === 3
      ? [0, 1, 2].map((k) => array.values[at + k] * 255)
      : colour(range, array.values[at + (channel ?? 0)]);
    image.data.set([...rgb, 255], i * 4);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// Draws an array with its padding at a whole size in CSS pixels; returns the context, scaled to image pixels.
export function paint(canvas, array, range, cell, { pads = [[0, 0], [0, 0]], channel } = {}) {
  const [[top, bottom], [left, right]] = pads;
  const width = (array.width + left + right) * cell, height = (array.height + top + bottom) * cell;
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  canvas.style.width = `${width}px`;
  canvas.style.aspectRatio = `${width} / ${height}`;
  const context = canvas.getContext("2d");
  hatch(context, canvas);
  context.imageSmoothingEnabled = false;
  context.setTransform(canvas.width / (array.width + left + right), 0, 0, canvas.height / (array.height + top + bottom), 0, 0);
  context.drawImage(raster(array, range, channel), left, top);
  return context;
}

function hatch(context, { width, height }) {
  const style = getComputedStyle(document.documentElement);
  context.fillStyle = style.getPropertyValue("--soft");
  context.fillRect(0, 0, width, height);
  context.strokeStyle = style.getPropertyValue("--hatch");
  context.lineWidth = 2;
  context.beginPath();
  for (let x = -height; x < width; x += 8) {
    context.moveTo(x, height);
    context.lineTo(x + height, 0);
  }
  context.stroke();
}

// Outlines a rectangle given in image pixels, dark inside of light, so that it shows on any picture.
export function outline(context, left, top, width, height) {
  const mark = getComputedStyle(document.documentElement).getPropertyValue("--mark");
  const m = context.getTransform(), density = window.devicePixelRatio || 1;
  context.save();
  context.resetTransform();
  for (const [stroke, line] of [["#fff", 4], [mark, 2]]) {
    context.strokeStyle = stroke;
    context.lineWidth = line * density;
    context.strokeRect(left * m.a, top * m.d, width * m.a, height * m.d);
  }
  context.restore();
}

export function legend(range) {
  const bar = document.createElement("canvas");
  bar.setAttribute("aria-hidden", "true");
  const ramp = Float32Array.from({ length: 64 }, (_, i) => range.low + ((range.high - range.low) * i) / 63);
  paint(bar, { height: 1, width: 64, channels: 1, values: ramp }, range, 2);
  bar.style.height = "10px";
  return make("div", { className: "legend" }, short(range.low), bar, short(range.high));
}

export const short = (value, digits = 2) => {
  const text = Math.abs(value) >= 1e5 ? value.toExponential(2) : value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
};

// Builds an element; texts become text, never markup.
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const spoken = document.getElementById("spoken");
export const say = (text) => { spoken.textContent = text; };
