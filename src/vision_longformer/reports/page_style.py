"""The style sheet of a run's page, light and dark. Its colours are of Okabe and Ito's palette, or near it."""

STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --card: #fff; --ink: #1b1d21; --soft: #575d66; --line: #dfe1e5;
  --blue: #0072b2; --orange: #d55e00; --green: #00805f; --purple: #a8487f; --gray: #575d66;
  --strong: #fff; --middle: #1b1d21; }
@media (prefers-color-scheme: dark) { :root { --ground: #141619; --card: #1c1f24; --ink: #e8eaed; --soft: #a7adb6;
  --line: #33373d; --blue: #56b4e9; --orange: #e69f00; --green: #2bc39a; --purple: #e39ac3; --gray: #a7adb6;
  --strong: #101214; --middle: #101214; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2rem clamp(1rem, 3vw, 2.5rem) 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; }
h3 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
.lead { margin: 0 0 1.2rem; color: var(--soft); overflow-wrap: anywhere; }
.lead b { font-weight: 500; color: var(--ink); }
.guide { max-width: 75ch; margin: .5rem 0 1rem; }
.small { max-width: 85ch; font-size: .875rem; color: var(--soft); }
.tiles { display: grid; gap: .8rem; margin: 0 0 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 180px), 1fr)); }
.tiles div, figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
.tiles div { padding: .7rem .9rem; }
dt, dd { margin: 0; font-size: .875rem; color: var(--soft); overflow-wrap: anywhere; }
dd.value { font-size: 1.6rem; line-height: 1.3; font-weight: 600; color: var(--ink); }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
.charts figure { padding: .7rem .8rem .4rem; }
figcaption { font-size: .9rem; color: var(--soft); }
figcaption b { color: var(--ink); margin-right: .3em; }
.legend { float: right; }
.entry { white-space: nowrap; }
.key { display: inline-block; position: relative; width: 1.6em; margin: 0 .4em 0 .9em; vertical-align: .25em;
  border-top: 2.5px solid; }
.key.marked::after { content: ""; position: absolute; left: .5em; top: calc(-.3em - 1.25px); width: .6em; height: .6em;
  border-radius: 50%; background: currentColor; }
.key.blue { color: var(--blue); }
.key.orange { color: var(--orange); }
.key.green { color: var(--green); border-top-style: dashed; }
.key.purple { color: var(--purple); border-top-style: dotted; }
.key.gray { color: var(--gray); border-top-style: double; border-top-width: 4px; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 14px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); }
svg .axis { stroke: var(--soft); }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .line.blue { stroke: var(--blue); }
svg .line.orange { stroke: var(--orange); }
svg .line.green { stroke: var(--green); stroke-dasharray: 8 4; }
svg .line.purple { stroke: var(--purple); stroke-dasharray: 2 3; }
svg .line.gray { stroke: var(--gray); stroke-dasharray: 12 3 2 3; }
svg .point { stroke: var(--card); stroke-width: 1; }
svg .blue:not(.line) { fill: var(--blue); }
svg .orange:not(.line) { fill: var(--orange); }
svg .green:not(.line) { fill: var(--green); }
svg .purple:not(.line) { fill: var(--purple); }
svg .gray:not(.line) { fill: var(--gray); }
svg .band { fill-opacity: .2; }
svg .ring { fill: none; stroke: var(--ink); stroke-width: 2; }
.matrix text { font-size: 13px; fill: var(--ink); }
.matrix .axis-name { fill: var(--soft); }
.matrix .ground { fill: var(--card); stroke: var(--line); }
.matrix .right { fill: var(--blue); }
.matrix .wrong { fill: var(--orange); }
.matrix .middle { fill: var(--middle); }
.matrix .strong { fill: var(--strong); }
.scale { white-space: nowrap; }
.swatch { display: inline-block; width: 1.1em; height: .9em; margin-right: .15em; vertical-align: -.1em; }
.swatch.right { background: var(--blue); }
.swatch.wrong { background: var(--orange); }
.pairs { display: flex; flex-wrap: wrap; gap: 1.4rem 1.6rem; }
.pair { width: max(12rem, calc(var(--thumbnails) * 112px)); max-width: 100%; padding-top: .6rem;
  border-top: 1px solid var(--line); font-size: .9rem; color: var(--soft); }
.pair h3 { color: var(--ink); }
.thumbnails { display: flex; flex-wrap: wrap; gap: 8px; margin-top: .4rem; }
.thumbnail { width: 104px; overflow: hidden; }
.thumbnail img { display: block; width: 100%; height: 102px; object-fit: contain; }
.thumbnail figcaption { text-align: center; font-size: .875rem; line-height: 1.6; color: var(--ink); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem 1.6rem .35rem 0; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
thead th { color: var(--soft); font-weight: 500; }
th:first-child, .text { text-align: left; }
th[scope=row] { font-weight: 500; white-space: normal; overflow-wrap: anywhere; min-width: min(8rem, 30vw); }
.track { display: block; position: relative; width: 14rem; height: .9rem; border-radius: .2rem;
  background: var(--line); }
.range { position: absolute; top: 0; bottom: 0; border-radius: .2rem; background: var(--blue); opacity: .5; }
.mark { position: absolute; top: -.15rem; bottom: -.15rem; width: 4px; margin-left: -2px; border-radius: 2px;
  background: var(--ink); }
.ends { display: flex; justify-content: space-between; width: 14rem; }
details { border-top: 1px solid var(--line); padding: .6rem 0; }
section > details:first-child { margin-top: 2.6rem; }
summary { cursor: pointer; font-size: 1.05rem; font-weight: 600; }
pre { overflow-x: auto; font-size: .875rem; line-height: 1.45; }
@media (max-width: 640px) { .track, .ends { width: 7rem; } th, td { padding-right: 1rem; }
  .chart text { font-size: 17px; } }
"""
