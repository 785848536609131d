// What the browser keeps from one visit to the next.

export function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("vil-theme", theme); } catch { /* not kept */ }
}

export function showHint(show) {
  document.getElementById("hint").hidden = !show;
  if (!show) try { localStorage.setItem("vil-hint", "seen"); } catch { /* not kept */ }
}

export function stored(key) {
  try { return localStorage.getItem(key); } catch { return null; }
}
