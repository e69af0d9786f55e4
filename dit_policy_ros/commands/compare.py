"""The command ``compare``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = """Compare policies by the reports of `evaluate` or of `replay`.

Reports of `evaluate`: success on common seeds, with McNemar's exact test and a sequential rule that may be looked at
after every episode. Reports of `replay`: error on common recordings, with a bootstrap interval and Wilcoxon's test.
Reports with the same weights are put together. Writes comparison.json and index.html.

Examples:
  python -m dit_policy_ros compare out/a out/b --report out/a_b
  python -m dit_policy_ros compare out/a out/b --most-pairs 200 --alpha 0.05 --outcome sticky --report out/a_b
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("reports", type=Path, nargs="+", metavar="REPORT_DIR", help="folders with a report.json")
    parser.add_argument("--report", type=Path, required=True, metavar="DIR", help="for comparison.json and index.html")
    parser.add_argument(
        "--outcome", default="strict", choices=("strict", "sticky"), help="success that counts (default %(default)s)"
    )
    parser.add_argument(
        "--most-pairs",
        type=int,
        metavar="N",
        help="largest number of episodes of each policy, chosen before the first (default: those there are)",
    )
    parser.add_argument(
        "--alpha", type=float, default=0.05, help="error of the sequential rule, two-sided (default %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Compares, prints what the pairs say, and writes the page."""
    from dit_policy_ros.evaluate.comparison import ErrorPair, compare, load_runs
    from dit_policy_ros.evaluate.comparison_page import write_comparison

    names = " ".join(path.resolve().name for path in args.reports)
    command = f"python -m dit_policy_ros compare {names} --outcome {args.outcome} --alpha {args.alpha:g}"
    command += f" --most-pairs {args.most_pairs}" if args.most_pairs else ""
    result = compare(load_runs(args.reports), f"{command} --report DIR", args.outcome, args.most_pairs, args.alpha)
    for label, (count, total, interval, _) in result.rates.items():
        print(f"{label}: {count} of {total}, {100 * interval.lower:.1f} to {100 * interval.upper:.1f} %")
    for pair in result.pairs:
        if isinstance(pair, ErrorPair):
            d = pair.difference
            print(f"{pair.first} - {pair.second}: {d.mean:+.4f} ({d.lower:+.4f} to {d.upper:+.4f}) over {pair.unit}")
        else:
            p_value, rule = pair.counts.p_value, pair.sequential
            print(
                f"{pair.first}, {pair.second}: only the first {pair.counts.only_first}, only the second "
                f"{pair.counts.only_second}, p = {p_value:.4f}; sequential: {rule.verdict}"
            )
    print(f"Page: {write_comparison(result, args.report)}")
    return 0
