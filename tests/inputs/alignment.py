"""Preferences, rewards and what runs on them refuse."""

from tests.inputs.row import GOOD, Row, refused

PAIRS = [
    {"instruction": f"Count to {n}.", "chosen": f"1 to {n}", "rejected": f"Well, 1 to {n}."}
    for n in range(1, 13)
]
EQUAL = [{**entry, "rejected": entry["chosen"]} for entry in PAIRS]
LONG = [{"instruction": "Count.", "chosen": "1 2 3 " * 900, "rejected": "1 2 3 " * 901}]
DIALOGUES = [{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"}]


def on_pairs(name: str, command: str, words: str, entries: object = None) -> Row:
    """A command on preference pairs that is refused."""
    content = PAIRS if entries is None else entries
    return refused(name, command.replace(" ", " pairs.json ", 1), words, {"pairs.json": content})


# fmt: off
# ruff: noqa: E501 (a row is a line)
ROWS = [
    on_pairs("a reward without rejected answers", "reward --out x", "no field 'rejected'", GOOD),
    on_pairs("dpo without rejected answers", "dpo --out x", "no field 'rejected'", GOOD),
    on_pairs("prompts that differ", "dpo --out x", "entry 0 of pairs.json", DIALOGUES),
    on_pairs("equal answers", "dpo --out x", "the two answers of every pair are equal", EQUAL),
    on_pairs("equal answers of a reward", "reward --out x", "the two answers of every pair are equal", EQUAL),
    on_pairs("equal when cut", "dpo --out x", "have equal answers when cut", LONG),
    on_pairs("none left", "dpo --out x --truncate drop", "no pair is left", LONG),
    on_pairs("a rejected answer that is null", "dpo --out x", "entry 0 of pairs.json", [{**PAIRS[0], "rejected": None}]),
    on_pairs("a rejected answer that is a list", "reward --out x", "entry 0 of pairs.json", [{**PAIRS[0], "rejected": [1]}]),
    on_pairs("beta of 0", "dpo --out x --beta 0", "beta must be above 0"),
    on_pairs("no beta", "dpo --out x --beta nan", "beta must be"),
    on_pairs("half of the labels wrong", "dpo --out x --label-smoothing 0.5", "below 0.5"),
    on_pairs("dropout in dpo", "dpo --out x --dropout 0.1", "there is no dropout in alignment"),
    on_pairs("dropout in a reward", "reward --out x --dropout 0.1", "there is no dropout in alignment"),
    on_pairs("a centre below 0", "reward --out x --centre -1", "centre must be at least 0"),
    on_pairs("a missing model", "dpo --out x --model nowhere", "nowhere"),
    refused("no file of pairs", "reward missing.json", "missing.json"),
    refused("no file for dpo", "dpo missing.json", "missing.json"),
    refused("grpo without a reward", "grpo ok.json", "what are answers rewarded by?"),
    refused("ppo without a reward", "ppo ok.json", "what are answers rewarded by?"),
    refused("one answer", "grpo ok.json --check exact --answers 1", "answers must be at least 2"),
    refused("no temperature", "grpo ok.json --check exact --temperature 0", "temperature must be above 0"),
    refused("no temperature in ppo", "ppo ok.json --check exact --temperature 0", "temperature must be above 0"),
    refused("top-k in a rollout", "grpo ok.json --check exact --top-k 5", "top_k"),
    refused("top-p in a rollout", "ppo ok.json --check exact --top-p 0.9", "top_p"),
    refused("a penalty in a rollout", "ppo ok.json --check exact --repetition-penalty 1.2", "a repetition penalty would change them"),
    refused("dropout in grpo", "grpo ok.json --check exact --dropout 0.1", "dropout"),
    refused("no room for an answer", "grpo ok.json --check exact --max-new-tokens 999999", "max_new_tokens"),
    refused("a check that nothing meets", "grpo words.json --check number", "number", {"words.json": [{"instruction": "Say a.", "output": "a"}]}),
    refused("an unknown check", "grpo ok.json --check magic", "check must be"),
    refused("beta of 0 in ppo", "ppo ok.json --check exact --beta 0", "beta must be above 0"),
    refused("no clip in ppo", "ppo ok.json --check exact --ratio-clip 0", "ratio_clip must be above 0"),
    refused("a policy as reward model", "ppo ok.json --reward-model tiny", "score"),
]
