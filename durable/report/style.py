"""How the report looks: its style sheet, for light and dark, wide and narrow, screen and paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f5f5f3; --card: #ffffff; --text: #1c1e21; --quiet: #62676e; --faint: #dfe1e4; --track: #eceef0;
  --good: #2c7a4b; --bad: #c8321f; --warn: #b26a00; --open: #2a66b0;
  --k0: #3b74b8; --k1: #2a9187; --k2: #8464c4; --k3: #b0891c; --k4: #b5538f; --k5: #6f8f2f; --k6: #66788a;
  --k7: #2b93b0;
}
@media (prefers-color-scheme: dark) { :root {
  --page: #15171a; --card: #1d2024; --text: #e4e6e9; --quiet: #989fa8; --faint: #343940; --track: #282c31;
  --good: #5fbd85; --bad: #ff6f5e; --warn: #e8a33d; --open: #77aef0;
  --k0: #6ea5e6; --k1: #4fc0b4; --k2: #ab90ea; --k3: #d5b04a; --k4: #dd82ba; --k5: #a0c25c; --k6: #94a6b8;
  --k7: #5bc0dc;
} }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 25px; line-height: 1.25; font-weight: 650; margin: 6px 0 4px; letter-spacing: -.01em;
  overflow-wrap: anywhere; }
h2 { font-size: 16px; font-weight: 650; margin: 0 0 12px; }
h3 { font-size: 13px; font-weight: 600; margin: 18px 0 6px; overflow-wrap: anywhere; }
h2 + h3, h2 + div > h3:first-child { margin-top: 0; }
p { margin: 4px 0; }
a { color: inherit; }
code, .mono { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Consolas, "Liberation Mono", monospace;
  overflow-wrap: anywhere; }
.quiet, .more { color: var(--quiet); font-size: 13px; }
.more { margin-top: 8px; }
header { margin-bottom: 20px; }
.kicker { color: var(--quiet); font-size: 13px; display: flex; gap: 10px; align-items: center; flex-wrap: wrap; }
.pill { color: #fff; background: var(--open); font-weight: 600; font-size: 12.5px; padding: 2px 10px;
  border-radius: 99px; }
.pill.finished { background: var(--good); }
.pill.failed { background: var(--bad); }
.pill.interrupted { background: var(--warn); }
@media (prefers-color-scheme: dark) { .pill { color: #101214; } }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 3px 16px; margin: 14px 0 0; font-size: 14px; }
.facts dt { color: var(--quiet); } .facts dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(132px, 1fr)); gap: 1px; margin: 18px 0 0;
  background: var(--faint); border: 1px solid var(--faint); border-radius: 10px; overflow: hidden; }
.tiles > div { background: var(--card); padding: 11px 14px 12px; min-width: 0; }
.tiles .what { color: var(--quiet); font-size: 12.5px; }
.tiles .figure { font-size: 18.5px; font-weight: 600; line-height: 1.3; letter-spacing: -.01em;
  font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.tiles .wide { grid-column: span 2; } .tiles .figure.long { font-size: 16px; line-height: 27px; letter-spacing: 0; }
.tiles .figure small { font-size: 13px; white-space: nowrap; font-weight: 400; color: var(--quiet); letter-spacing: 0; }
.tiles .sub { font-size: 12.5px; color: var(--quiet); }
.progress { display: flex; height: 6px; margin: 14px 0 0; border-radius: 3px; overflow: hidden;
  background: var(--faint); }
.progress i { display: block; }
.progress .done { background: var(--good); }
.progress .skipped { background: var(--warn); }
.note { border-left: 3px solid var(--open); background: var(--card); border-radius: 0 8px 8px 0; margin: 16px 0 0;
  padding: 9px 14px; }
.note.bad { border-color: var(--bad); } .note.warn { border-color: var(--warn); }
.message { white-space: pre-wrap; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--faint); border-radius: 10px; padding: 16px 18px 18px;
  margin: 14px 0 0; }
.scroll { overflow-x: auto; } .tall { max-height: min(640px, 80vh); overflow-y: auto; }
.tall th { position: sticky; top: 0; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { text-align: left; vertical-align: top; padding: 6px 16px 6px 0; border-top: 1px solid var(--faint); }
th { color: var(--quiet); font-weight: 500; font-size: 12.5px; white-space: nowrap; border-top: 0; padding-top: 0; }
td { overflow-wrap: break-word; } th:last-child, td:last-child { padding-right: 0; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; } .w { white-space: nowrap; }
td.text { min-width: 16em; }
.failed-text { color: var(--bad); }
.skipped-text, .retried-text { color: var(--warn); }
.done-text { color: var(--good); }
.legend { color: var(--quiet); font-size: 12.5px; margin-top: 8px; display: flex; flex-wrap: wrap; gap: 3px 18px; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2.5px;
  background: var(--k, var(--quiet)); vertical-align: -1px; }
.sample { vertical-align: -2px; overflow: visible; }
.plan, .plan ul { list-style: none; margin: 0; padding: 0; }
.plan ul { border-left: 1.5px solid var(--faint); margin: 2px 0 2px 5px; padding-left: 15px; }
.plan > ul { border: 0; margin: 0; padding: 0; }
.plan li { padding: 2px 0; overflow-wrap: anywhere; } .plan b { font-weight: 600; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 10px; }
.pictures figure, .charts figure { margin: 0; min-width: 0; }
.pictures img { display: block; width: 100%; height: auto; max-height: 170px; object-fit: contain;
  background: var(--track);
  border-radius: 6px; }
.pictures figcaption { font-size: 12px; color: var(--quiet); margin-top: 3px; white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); gap: 22px 28px; }
.charts figcaption { display: flex; justify-content: space-between; gap: 12px; align-items: baseline; }
.charts figcaption b { font-weight: 600; font-size: 13.5px; overflow-wrap: anywhere; min-width: 0; }
.charts figcaption span { font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap;
  color: var(--k); }
.charts figcaption small { font-weight: 400; font-size: 12.5px; color: var(--quiet); }
.c0 { --k: var(--k0); } .c1 { --k: var(--k1); } .c2 { --k: var(--k2); } .c3 { --k: var(--k3); }
.c4 { --k: var(--k4); } .c5 { --k: var(--k5); } .c6 { --k: var(--k6); } .c7 { --k: var(--k7); }
.iter { --k: color-mix(in srgb, var(--quiet) 55%, transparent); }
.iter.odd { --k: color-mix(in srgb, var(--quiet) 30%, transparent); }
.failed { --k: var(--bad); } .skipped { --k: var(--warn); }
.retried { --k: color-mix(in srgb, var(--warn) 55%, var(--card)); } .undone { --k: var(--faint); }
svg.chart { display: block; overflow: visible; }
svg.gutter { margin-left: 46px; width: calc(100% - 46px); }
svg text { font-size: 11.5px; fill: var(--quiet); } svg text.name { fill: var(--text); font-size: 12.5px; }
svg .track { fill: var(--track); }
.bars rect { fill: var(--k); }
.bars.few rect { stroke: var(--card); stroke-width: 1; }
.bars rect:hover { opacity: .75; }
svg line { stroke: var(--faint); }
svg .tick { stroke: var(--faint); stroke-dasharray: 1 3; }
svg .aim { stroke: transparent; stroke-width: 9; }
svg .at { overflow: visible; } .mark { stroke: var(--card); stroke-width: 1; }
.mark.retry { fill: var(--warn); } .mark.recycle { fill: var(--k2); } .mark.end { fill: var(--bad); }
.pause { fill: url(#pause); }
.pause.swatch { background: repeating-linear-gradient(135deg, var(--quiet) 0 1px, transparent 1px 4px); }
.stripe { stroke: var(--quiet); stroke-width: 1; opacity: .55; fill: none; }
svg .upright { stroke: var(--k2); stroke-dasharray: 4 3; } svg .many { opacity: .4; }
svg .level { stroke: var(--bad); stroke-dasharray: 6 4; }
svg text.levelname { fill: var(--bad); }
.halo { paint-order: stroke; stroke: var(--card); stroke-width: 3px; stroke-linejoin: round; }
.line { fill: none; stroke: var(--k); stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; }
.dot { fill: var(--k); stroke: var(--card); stroke-width: 1.2; }
footer { color: var(--quiet); font-size: 12.5px; margin: 18px 2px 0; }
@media (max-width: 560px) {
  main { padding: 18px 12px 32px; } section { padding: 14px 13px 15px; } h1 { font-size: 21px; }
  .tiles { grid-template-columns: 1fr 1fr; } .tiles .wide { grid-column: auto; }
.tiles > div { padding: 9px 11px 10px; }
.tiles .figure { font-size: 18px; }
  .facts { gap: 3px 12px; font-size: 13.5px; }
  .pictures { grid-template-columns: repeat(auto-fill, minmax(66px, 1fr)); gap: 6px; }
  .stacks thead { display: none; } .stacks, .stacks tbody, .stacks tr, .stacks td { display: block; }
  .stacks tr { border-top: 1px solid var(--faint); padding: 7px 0; }
  .stacks tr:first-child { border: 0; padding-top: 0; }
  .stacks td { border: 0; padding: 1px 0 1px 84px; min-height: 22px; text-align: left; white-space: normal;
    position: relative; }
  .stacks td::before { content: attr(data-label); position: absolute; left: 0; color: var(--quiet);
    font-size: 12.5px; }
  .stacks td:empty { display: none; }
}
@media print { body { background: #fff; } section { break-inside: avoid; } .tall { max-height: none; } }
"""
