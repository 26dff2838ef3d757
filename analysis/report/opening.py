"""The opening of the page: the result, how sure it is, whether it is fair, what was run, and what the words mean."""

from collections.abc import Sequence

from analysis.page import Block, Section, Text
from analysis.report import facts, glossary
from analysis.report.matched import DRAWS, Matched
from analysis.runs import NO_RESULT


def section(matched: Matched | None, status: Sequence[str] = ()) -> Section:
    """Return the opening on a comparison.

    Args:
        matched: The comparison that the page shows; None if no run has a result.
        status: Sentences on contenders or runs that are missing. They come first only if there is no result.
    """
    has_result = matched is not None and len(matched.settings) > 1
    blocks: list[Block] = [] if has_result else [Text(text, "verdict") for text in status]
    if matched is None:
        blocks.append(Text(NO_RESULT, "verdict"))
    elif matched.settings:
        result = f"{matched.headline(DRAWS)} {facts.conditions(matched)}"
        blocks.append(Text(result.strip(), "verdict"))
        if fairness := facts.fairness(matched):
            blocks.append(Text(fairness))
        notes = [*(status if has_result else []), *matched.notes()]
        blocks += [Text(note, "note") for note in notes]
        blocks.append(facts.facts(matched))
    return Section("Result", [*blocks, *glossary.section().blocks])
