"""The names of measures, as ir_measures reads them.

parse_measures(["nDCG@10", "RR(rel=2)@10"])
"""

from distill.errors import InputError

EXAMPLES = "write it as in nDCG@10, RR(rel=2)@10, R@100"


def parse_measures(names: list[str]) -> list:
    """Turn names such as nDCG@10 or RR(rel=2)@10 into `ir_measures`, each once.

    Raises InputError for an unknown one, and for one whose parameters are missing, unknown or impossible.
    """
    import ir_measures

    measures = []
    for name in names:
        try:
            one = ir_measures.parse_measure(name)
        except NameError:
            known = ", ".join(sorted({one.NAME for one in ir_measures.measures.registry.values()}))
            raise InputError(f"measure {name}: unknown to ir_measures: {EXAMPLES}; there are {known}") from None
        except ValueError as error:
            reason = "it has a negative number" if "-" in name else str(error).split(";")[0]
            raise InputError(f"measure {name}: cannot be read ({reason}): {EXAMPLES}") from None
        _check_parameters(name, one)
        if one not in measures:  # MRR@10 and RR@10 are one measure
            measures.append(one)
    return measures


def _check_parameters(name: str, one) -> None:
    known = one.SUPPORTED_PARAMS
    for key, value in one.params.items():
        if key not in known:
            raise InputError(f"measure {name}: has no {key}: leave it out (it takes {', '.join(known) or 'nothing'})")
        if not known[key].validate(value) or isinstance(value, bool) != (known[key].dtype is bool):
            raise InputError(f"measure {name}: {key}={value!r} is impossible: {EXAMPLES}")
        if key == "cutoff" and value < 1:
            raise InputError(f"measure {name}: a cut-off must be 1 or more: {EXAMPLES}")
        if key == "recall" and not (0 <= value <= 1 and round(value, 2) == value):  # trec_eval reads two digits
            raise InputError(f"measure {name}: the recall must be 0 to 1 with two digits at most, as in IPrec@0.25")
    for key, parameter in known.items():
        if parameter.required and key not in one.params:
            given = f"{name}@10" if key == one.AT_PARAM else f"{name.split('@')[0]}({key}=…)"
            raise InputError(f"measure {name}: needs its {key}: give it as in {given}")
