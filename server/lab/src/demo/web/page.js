"use strict";

// The page of `seco demo --web`. It draws, asks the device on this machine (the same process that serves the page), and
// shows what came of it.

const at = (id) => document.getElementById(id);
const drawing = at("drawing");
const pen = drawing.getContext("2d", { willReadFrequently: true });
let model = null;
let chosen = null; // Values of a sample, instead of what was drawn.
let drawn = false;
let busy = false;

const number = (value, digits = 0) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const bytes = (value) => (value < 10000 ? `${number(value)} B` : value < 1e6 ? `${number(value / 1000, 1)} kB` : `${number(value / 1e6, 1)} MB`);

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// ---- Drawing

function clear() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, drawing.width, drawing.height);
  chosen = null;
  drawn = false;
  at("predict").disabled = true;
}

function place(event) {
  const box = drawing.getBoundingClientRect();
  return [(event.clientX - box.left) * drawing.width / box.width, (event.clientY - box.top) * drawing.height / box.height];
}

let last = null;
drawing.addEventListener("pointerdown", (event) => {
  if (chosen) clear();
  drawing.setPointerCapture(event.pointerId);
  last = place(event);
  stroke(last);
});
drawing.addEventListener("pointermove", (event) => {
  if (!last) return;
  const parts = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  (parts.length ? parts : [event]).forEach((part) => stroke(place(part)));
});
for (const end of ["pointerup", "pointercancel"]) drawing.addEventListener(end, () => { last = null; });

function stroke(to) {
  pen.strokeStyle = "#fff";
  pen.lineWidth = 22;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...last);
  pen.lineTo(to[0] + 0.01, to[1]);
  pen.stroke();
  last = to;
  drawn = true;
  at("predict").disabled = busy || !model;
}

// As the training data was made: the ink fits a box, and its centre of mass is in the middle.
function values() {
  if (chosen) return chosen;
  const [height, width] = model.shape.slice(-2);
  const { data } = pen.getImageData(0, 0, drawing.width, drawing.height);
  let [left, top, right, bottom] = [drawing.width, drawing.height, -1, -1];
  for (let y = 0; y < drawing.height; y += 1) {
    for (let x = 0; x < drawing.width; x += 1) {
      if (data[4 * (y * drawing.width + x)] > 30) {
        left = Math.min(left, x); right = Math.max(right, x);
        top = Math.min(top, y); bottom = Math.max(bottom, y);
      }
    }
  }
  const small = document.createElement("canvas");
  [small.width, small.height] = [width, height];
  const context = small.getContext("2d", { willReadFrequently: true });
  const scale = Math.min(width, height) * (20 / 28) / Math.max(right - left + 1, bottom - top + 1);
  const draw = (x, y) => {
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    const size = [(right - left + 1) * scale, (bottom - top + 1) * scale];
    context.drawImage(drawing, left, top, right - left + 1, bottom - top + 1, x, y, ...size);
    return context.getImageData(0, 0, width, height).data;
  };
  let [x, y] = [(width - (right - left + 1) * scale) / 2, (height - (bottom - top + 1) * scale) / 2];
  let [mass, massX, massY] = [0, 0, 0];
  draw(x, y).forEach((ink, index) => {
    if (index % 4 !== 0) return;
    const pixel = index / 4;
    mass += ink; massX += ink * (pixel % width); massY += ink * Math.floor(pixel / width);
  });
  x += (width - 1) / 2 - massX / mass;
  y += (height - 1) / 2 - massY / mass;
  const pixels = draw(x, y);
  return Uint8Array.from({ length: width * height }, (_, pixel) => Math.round(pixels[4 * pixel] * model.ink / 255));
}

function picture(canvas, input, most) {
  const [height, width] = model.shape.slice(-2);
  const context = canvas.getContext("2d");
  const image = new ImageData(width, height);
  input.forEach((value, pixel) => {
    const ink = Math.min(255, value * 255 / most);
    image.data.set([ink, ink, ink, 255], 4 * pixel);
  });
  const small = document.createElement("canvas");
  [small.width, small.height] = [width, height];
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

// ---- Asking

async function predict() {
  if (busy || !model || !(drawn || chosen)) return;
  busy = true;
  at("predict").disabled = true;
  at("answer").textContent = "The servers compute …";
  const input = Uint8Array.from(values());
  try {
    const response = await fetch("/predict", { method: "POST", headers: { "x-seco-demo": "1" }, body: input });
    if (!response.ok) throw new Error((await response.text()).trim());
    show(input, await response.json());
  } catch (error) {
    at("answer").replaceChildren(element("span", `No answer: ${error.message}`, "bad"));
  }
  busy = false;
  at("predict").disabled = false;
}

function show(input, told) {
  at("answer").replaceChildren(...(told.value === null
    ? [element("span", "It is a "), element("strong", String(told.label))]
    : [element("span", `The answer is ${told.value}`)]));
  at("bars").replaceChildren(...(told.probabilities ?? []).map((probability, label) => {
    const bar = element("div", undefined, label === told.label ? "bar best" : "bar");
    const ink = element("i");
    ink.style.setProperty("width", `${100 * probability}%`);
    bar.append(element("span", String(label)), ink, element("span", `${number(100 * probability, 1)} %`));
    return bar;
  }));
  const count = told.logits.length;
  const numbers = count === 1 ? "The number of the answer is that" : `The ${number(count)} numbers of the answer are those`;
  const why = told.equal
    ? element("span", `${numbers} of the same network computed in clear, bit for bit.`, "good")
    : element("span", "The answer differs from the network in clear: please report this.", "bad");
  at("why").replaceChildren(why);
  if (told.outside_calibration) at("why").append(element("span", " The input is beyond what calibrated the network.", "bad"));
  picture(at("input"), input, model.ink);
  picture(at("sent"), told.sent, 255);

  const step = (where, what) => {
    const item = element("li");
    item.append(element("strong", where), element("div", what, "small"));
    return item;
  };
  const device = step("this device", `sent ${bytes(told.bytes_up)}, received ${bytes(told.bytes_down)}, and waited ${number(told.waited_ms, 1)} ms`);
  const servers = told.servers.map((server) => {
    const parts = [];
    if (server.sent_bytes !== null) parts.push(`sent ${bytes(server.sent_bytes)} to the others`);
    if (server.ms !== null) parts.push(`${number(server.ms, 1)} ms`);
    return step(server.name, parts.join(", ") || "did its part");
  });
  at("way").replaceChildren(device, ...servers);
  cost(told);
  live();
}

function cost(told) {
  const { plain } = told ?? { plain: model.plain };
  const row = (what, ours, theirs) => {
    const line = element("tr");
    line.append(element("td", what), element("td", ours), element("td", theirs));
    return line;
  };
  const ours = (value) => (told ? value() : "–");
  at("cost").replaceChildren(
    row("bytes sent", ours(() => bytes(told.bytes_up)), bytes(plain.bytes_up)),
    row("bytes received", ours(() => bytes(told.bytes_down)), bytes(plain.bytes_down)),
    row("waited", ours(() => `${number(told.waited_ms, 1)} ms`), `${number(plain.waited_ms, 1)} ms`),
    row("keys, tables, ciphertexts kept", ours(() => "none"), "none"),
  );
}

// ---- What goes on meanwhile

async function live() {
  try {
    const now = await (await fetch("/live")).json();
    const made = now.servers.length ? now.servers[0].bundles : 0;
    at("pool").textContent = now.failure
      ? `Trouble: ${now.failure}`
      : `${now.pool} predictions are prepared; ${made} were since the start, ${now.servers[0].inferences} were used. ` +
        "Preparing needs no input, and the device has no part in it.";
  } catch {
    at("pool").textContent = "The servers are gone: start the demo again.";
  }
}

function view(report) {
  at("try").hidden = report;
  at("report").hidden = !report;
  at("show-try").setAttribute("aria-pressed", String(!report));
  at("show-report").setAttribute("aria-pressed", String(report));
  if (report && model && model.report) {
    at("no-report").hidden = true;
    at("report-frame").hidden = false;
    if (!at("report-frame").src) at("report-frame").src = "/report";
  }
}

async function start() {
  clear();
  at("predict").addEventListener("click", predict);
  at("clear").addEventListener("click", clear);
  at("show-try").addEventListener("click", () => view(false));
  at("show-report").addEventListener("click", () => view(true));
  drawing.addEventListener("keydown", (event) => { if (event.key === "Enter") predict(); });
  model = await (await fetch("/model")).json();
  at("title").textContent = model.title;
  at("predict").disabled = !drawn;
  at("samples").replaceChildren(...model.samples.map(({ label, values: sample }) => {
    const button = element("button");
    button.setAttribute("aria-label", `a ${label} of the test data`);
    const small = element("canvas");
    [small.width, small.height] = [36, 36];
    picture(small, sample, model.ink);
    button.append(small);
    button.addEventListener("click", () => {
      clear();
      chosen = sample;
      picture(drawing, sample, model.ink);
      at("predict").disabled = busy;
    });
    return button;
  }));
  cost(null);
  live();
  setInterval(live, 1000);
}

start().catch((error) => { at("title").textContent = `The demo does not answer: ${error.message}`; });
