// Videos of one row in step: the first one leads.
const DRIFT_S = 0.05;
function inStep(row) {
  const videos = [...row.querySelectorAll("video")];
  const button = row.querySelector(".controls button");
  const range = row.querySelector(".controls input");
  if (!videos.length) { row.querySelector(".controls").hidden = true; return { load() {}, unload() {} }; }
  let playing = false;
  const length = () => Math.max(0, ...videos.map((v) => v.duration || 0));
  const leader = () => videos.reduce((a, b) => ((b.duration || 0) > (a.duration || 0) ? b : a));
  const seek = (time) => videos.forEach((v) => { v.currentTime = Math.min(time, v.duration || 0); });
  const label = () => { button.textContent = playing ? "Pause" : "Play"; };
  function pause() { playing = false; videos.forEach((v) => v.pause()); label(); }
  function follow() {
    if (!playing) return;
    const first = leader();
    if (first.ended || first.currentTime >= first.duration) { seek(0); start(); }
    for (const v of videos) {
      const due = Math.min(first.currentTime, v.duration || 0);
      if (v !== first && !v.ended && Math.abs(v.currentTime - due) > DRIFT_S) v.currentTime = due;
    }
    range.value = length() ? first.currentTime / length() : 0;
    requestAnimationFrame(follow);
  }
  function start() { videos.forEach((v) => { v.play().catch(() => {}); }); }
  function play() { load(); playing = true; label(); seek(range.value >= 1 ? 0 : range.value * length()); start(); requestAnimationFrame(follow); }
  function load() {
    for (const v of videos) if (!v.src) { v.src = v.dataset.src; v.preload = "auto"; v.load(); }
  }
  function unload() {
    pause();
    for (const v of videos) if (v.src) { v.removeAttribute("src"); v.load(); }
  }
  button.addEventListener("click", () => (playing ? pause() : play()));
  range.addEventListener("input", () => { pause(); load(); seek(range.value * length()); });
  label();
  return { load, unload, pause };
}
