const data = JSON.parse(document.getElementById("data").textContent);
const store = `ratings ${data.study}`;
let ratings = {};
let at = 0;
let players = null;
const element = (tag, values = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children);
  return made;
};
const by = (id) => document.getElementById(id);
try {
  const kept = JSON.parse(localStorage.getItem(store) || "{}");
  ratings = kept.ratings || {};
  by("rater").value = kept.rater || "";
} catch { /* without storage, ratings last as long as the page */ }
function keep() {
  try { localStorage.setItem(store, JSON.stringify({ rater: by("rater").value, ratings })); } catch { /* as above */ }
  const done = data.rows.flatMap((row) => row.videos).filter(complete).length;
  by("state").textContent = `${done} of ${data.rows.flatMap((row) => row.videos).length} videos rated`;
}
function complete(video) { return Object.keys(data.criteria).every((name) => (ratings[video] || {})[name]); }
function scale(video, name, title) {
  const field = element("fieldset", {}, element("legend", { textContent: title }));
  for (let value = 1; value <= 5; value++) {
    const input = element("input", { type: "radio", name: `${video} ${name}`, value, checked: (ratings[video] || {})[name] === value });
    input.addEventListener("change", () => { (ratings[video] ||= {})[name] = value; keep(); });
    field.append(element("label", {}, input, String(value)));
  }
  return field;
}
function player(address) {
  const video = element("video", { muted: true, playsInline: true, preload: "none" });
  video.dataset.src = address;
  return video;
}
function draw() {
  if (players) players.unload();
  const row = data.rows[at];
  const place = by("row");
  place.replaceChildren();
  by("number").textContent = data.rows.length ? `${at + 1} of ${data.rows.length}` : "no rows";
  by("back").disabled = at === 0;
  by("next").disabled = at >= data.rows.length - 1;
  if (!row) return;
  const shown = element("div", { className: "players" });
  for (const [title, address, isVideo] of row.inputs) {
    const view = isVideo ? player(address) : element("img", { alt: title, src: address });
    shown.append(element("figure", { className: "input" }, view, element("figcaption", { textContent: title })));
  }
  row.videos.forEach((video, number) => {
    const fields = Object.entries(data.criteria).map(([name, title]) => scale(video, name, title));
    const caption = element("figcaption", {}, element("b", { textContent: String.fromCharCode(65 + number) }), ...fields);
    shown.append(element("figure", {}, player(`${video}.mp4`), caption));
  });
  const range = element("input", { type: "range", min: 0, max: 1, step: 0.001, value: 0, ariaLabel: "position" });
  const controls = element("div", { className: "controls" }, element("button", { type: "button" }), range);
  place.append(element("p", { className: "prompt", textContent: row.prompt }), shown, controls);
  players = inStep(place);
  players.load();
}
function cell(value) { return /[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value; }
function save() {
  const rater = by("rater").value.trim();
  if (!rater) { by("state").textContent = "Give your name or number first."; by("rater").focus(); return; }
  const lines = [data.columns.join(",")];
  for (const video of data.rows.flatMap((row) => row.videos).filter(complete)) {
    lines.push(data.columns.map((name) => cell(String({ rater, video, ...ratings[video] }[name]))).join(","));
  }
  const file = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  element("a", { href: file, download: `ratings ${rater.replace(/[^\w-]+/g, "_")}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(file), 10000);
}
by("back").addEventListener("click", () => { at = Math.max(0, at - 1); draw(); });
by("next").addEventListener("click", () => { at = Math.min(data.rows.length - 1, at + 1); draw(); });
by("save").addEventListener("click", save);
by("rater").addEventListener("input", keep);
draw();
keep();
