"""Style sheet of the report page; light and dark by the reader's setting."""

CSS = """
:root { color-scheme: light dark; --bg: #ffffff; --panel: #f6f7f9; --ink: #17202c; --muted: #5d6879; --line: #dfe4ea;
  --good: #12866a; --warn: #b97800; --bad: #c23450; --first: #2563c9; --second: #d9730d; --on: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --bg: #11151b; --panel: #1a2028; --ink: #e6eaf0; --muted: #94a0b2;
  --line: #2c3541; --good: #35b894; --warn: #e0a63a; --bad: #ec6480; --first: #6ba4ff; --second: #ff9f45;
  --on: #11151b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", "Liberation Sans", Arial, sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1120px; margin: 0 auto; padding: 36px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 2px 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 44px 0 12px; padding-top: 18px; border-top: 1px solid var(--line); }
h3 { font-size: 16px; margin: 0; font-weight: 600; }
p { margin: 6px 0; } a { color: var(--first); }
.muted, .eyebrow { color: var(--muted); } .eyebrow { font-size: 13px; letter-spacing: 0.04em; }
.hero { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 16px; margin: 24px 0 16px; }
.panel { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; }
.hero .rate { font-size: 52px; font-weight: 650; line-height: 1.1; letter-spacing: -0.02em; }
.hero .rate small { font-size: 24px; font-weight: 500; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 12px; }
.cards .panel { padding: 12px 14px; } .cards b { display: block; font-size: 21px; font-weight: 600; }
.cards span { color: var(--muted); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 16px; }
.charts h3, .joints h3 { font-size: 13px; color: var(--muted); font-weight: 600; margin-bottom: 4px; }
.joints { display: grid; grid-template-columns: repeat(auto-fill, minmax(138px, 1fr)); gap: 8px; margin-top: 14px; }
.joints .panel { padding: 7px 5px 3px; } .joints h3 { font-size: 12px; margin-left: 4px; }
article { margin: 22px 0 34px; } article header { display: flex; gap: 12px; align-items: baseline; flex-wrap: wrap;
  margin-bottom: 10px; }
video { width: 100%; max-width: 760px; border-radius: 10px; border: 1px solid var(--line); display: block;
  margin: 0 auto 14px; background: #000; }
.badge { display: inline-block; border-radius: 999px; padding: 1px 10px; font-size: 12.5px; font-weight: 600;
  color: var(--on); white-space: nowrap; }
.badge.strict { background: var(--good); } .badge.sticky { background: var(--warn); }
.badge.failure { background: var(--bad); }
.legend { display: flex; gap: 18px; flex-wrap: wrap; font-size: 13px; color: var(--muted); margin: 8px 0; }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px;
  vertical-align: -1px; } .legend i.rule { height: 3px; width: 18px; vertical-align: 4px; }
.scroll { overflow: auto; max-height: 460px; border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; } th, td { padding: 6px 10px; text-align: left;
  border-bottom: 1px solid var(--line); white-space: nowrap; } td.number, th.number { text-align: right; }
td.wide { white-space: normal; min-width: 250px; } tr:last-child td { border-bottom: 0; }
thead th { position: sticky; top: 0; background: var(--panel); font-weight: 600; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; overflow: auto;
  font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0; font-size: 14px; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--muted); font-family: inherit; }
.tick { font-size: 10px; } .label { font-size: 10.5px; }
.grid { stroke: var(--line); } .axis { stroke: var(--muted); opacity: 0.6; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.commanded { stroke: var(--first); stroke-width: 3; opacity: 0.5; }
.measured { stroke: var(--second); stroke-width: 1.3; }
.age, .reward { stroke: var(--first); } .stem { stroke: var(--first); stroke-width: 2; }
.bar { fill: var(--first); opacity: 0.8; } .mark { stroke: var(--second); stroke-width: 1.6; fill: none; }
.dashed { stroke-dasharray: 4 3; } .event { stroke: var(--bad); stroke-width: 1.2; stroke-dasharray: 2 3; }
.track { fill: var(--line); } .whisker { stroke: var(--ink); stroke-width: 1.8; fill: none; }
.fill-strict, .cell.strict { fill: var(--good); } .cell.sticky { fill: var(--warn); }
.fill-sticky { fill: var(--first); }
.cell.failure { fill: var(--bad); } .sign { stroke: var(--on); stroke-width: 2; fill: none; stroke-linecap: round; }
i.strict { background: var(--good); } i.sticky { background: var(--warn); } i.failure { background: var(--bad); }
i.commanded { background: var(--first); } i.measured { background: var(--second); }
i.event { background: var(--bad); }
.film { display: grid; grid-template-columns: repeat(auto-fill, minmax(122px, 1fr)); gap: 8px; }
.film figure { margin: 0; }
.film img { display: block; width: 100%; border-radius: 6px; border: 1px solid var(--line); }
.film.large { grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); }
figcaption { font-size: 12px; color: var(--muted); margin-top: 2px; }
.badge.error { background: var(--bad); } .badge.warning { background: var(--warn); }
.badge.note { background: var(--muted); } .badge.good { background: var(--good); }
.fill-seen { fill: var(--first); } .fill-over { fill: var(--bad); } .present { fill: var(--first); }
.policy { stroke: var(--first); stroke-width: 2.2; } .hold { stroke: var(--muted); }
.repeat { stroke: var(--second); } .linear { stroke: var(--good); stroke-dasharray: 5 3; }
.recorded { stroke: var(--second); stroke-width: 1.8; } .was { stroke: var(--muted); stroke-width: 1.2; }
i.policy { background: var(--first); } i.hold, i.was { background: var(--muted); }
i.repeat, i.recorded { background: var(--second); } i.linear { background: var(--good); }
.alarm { border: 2px solid var(--bad); border-radius: 10px; padding: 12px 18px; margin: 18px 0; }
.alarm h2 { border: 0; margin: 0 0 6px; padding: 0; color: var(--bad); }
td.bad { color: var(--bad); font-weight: 600; } .tall { max-height: none; }
.curve-0 { stroke: #2563c9; } i.curve-0 { background: #2563c9; }
.curve-1 { stroke: #d9730d; } i.curve-1 { background: #d9730d; }
.curve-2 { stroke: #12866a; } i.curve-2 { background: #12866a; }
.curve-3 { stroke: #c23450; } i.curve-3 { background: #c23450; }
.curve-4 { stroke: #7c4dcc; } i.curve-4 { background: #7c4dcc; }
.curve-5 { stroke: #0e8fa8; } i.curve-5 { background: #0e8fa8; }
.curve-6 { stroke: #b97800; } i.curve-6 { background: #b97800; }
.curve-7 { stroke: #5d6879; } i.curve-7 { background: #5d6879; }
.curve-8 { stroke: #c0479b; } i.curve-8 { background: #c0479b; }
.curve-9 { stroke: #5a8f1d; } i.curve-9 { background: #5a8f1d; }
.curve-10 { stroke: #8a5a3b; } i.curve-10 { background: #8a5a3b; }
.curve-11 { stroke: #3b4a9c; } i.curve-11 { background: #3b4a9c; }
.line.spread { stroke-width: 1; opacity: 0.6; }
@media print { .scroll { max-height: none; } article { break-inside: avoid; } }
"""
