// The scale bar: as long as the longest of 1, 2 and 5 times a power of ten that has room.

const LONGEST = 140; // CSS pixels

// micrometres: of a pixel of the image; null if the image does not say
export function showBar(viewer, micrometres) {
  if (!viewer.base) return;
  const each = (micrometres ?? 1) / viewer.scale(); // of a CSS pixel
  const most = LONGEST * each;
  const power = 10 ** Math.floor(Math.log10(most));
  const length = power * [5, 2, 1].find((step) => step * power <= most);
  const [unit, shown] = !micrometres ? ["px", length] : length >= 1000 ? ["mm", length / 1000] : ["µm", length];
  const bar = document.getElementById("bar");
  bar.hidden = false;
  bar.querySelector("i").style.width = `${length / each}px`;
  bar.querySelector("span").textContent = `${shown.toLocaleString("en")} ${unit}`;
}
