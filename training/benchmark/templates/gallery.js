// Only rows near the window hold decoders: browsers have few.
const rows = new Map([...document.querySelectorAll(".row")].map((row) => [row, inStep(row)]));
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) entry.isIntersecting ? rows.get(entry.target).load() : rows.get(entry.target).unload();
}, { rootMargin: "400px" });
rows.forEach((_, row) => near.observe(row));
document.getElementById("task").addEventListener("change", (event) => {
  rows.forEach((_, row) => { row.hidden = event.target.value !== "" && row.dataset.task !== event.target.value; });
});
