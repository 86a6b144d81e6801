"""Whether a demonstration reached its goals: `python -m tests.align_goals FOLDER`."""

import json
import sys
from pathlib import Path

REWARD = {"padded": 0.95, "cut": 0.95, "wrong": 0.70}  # accuracy on held-out pairs, by kind
DIRECT = 0.90  # of sampled answers, with DPO and PPO; about half before
HALF = (0.35, 0.65)
LOST = {"dpo": 0.03, "ppo": 0.05}  # of greedy answers that are right, at most
GAINED = 0.15  # of held-out arithmetic by the check, with GRPO
HACKED = 0.30  # of greedy answers that are right, at least, where the reward is hacked
MINUTES = 10


def share(results, name, mode, mark, part="all"):
    """The share of a model's answers that have a mark."""
    counts = results["exams"][name][mode][part]
    return counts[mark] / counts["asked"]


def change(old, new):
    """The difference of two shares."""
    return round(new - old, 9)


def missed_goals(results):
    """Every goal that these results miss, in words."""
    missed = []

    def require(is_reached, text):
        if not is_reached:
            missed.append(text)

    for kind, least in REWARD.items():
        accuracy = results["reward_models"]["reward"]["accuracy"][kind]
        require(accuracy >= least, f"reward model over {kind} answers: {accuracy:.1%}")
    direct = share(results, "mixture", "sampled", "direct")
    require(HALF[0] <= direct <= HALF[1], f"direct at the start: {direct:.1%}, not about half")
    right = share(results, "mixture", "greedy", "right")
    for name, most in LOST.items():
        direct = share(results, name, "sampled", "direct")
        require(direct >= DIRECT, f"{name}: {direct:.1%} of the samples are direct")
        now = share(results, name, "greedy", "right")
        require(
            -change(right, now) <= most, f"{name}: right answers fell from {right:.1%} to {now:.1%}"
        )
    old, new = (
        share(results, name, "greedy", "checked", "arithmetic") for name in ("undertuned", "grpo")
    )
    require(change(old, new) >= GAINED, f"GRPO: arithmetic rose from {old:.1%} to {new:.1%} only")
    now = share(results, "hacked", "greedy", "right")
    text = f"hacked: right answers fell from {right:.1%} to {now:.1%} only"
    require(-change(right, now) >= HACKED, text)
    rewards = [value for _, value in results["curves"]["hacked"]["reward"]]
    require(rewards[-1] > rewards[0], "hacked: the reward did not rise")
    minutes = results["seconds"] / 60
    require(minutes <= MINUTES, f"it took {minutes:.1f} minutes, more than {MINUTES}")
    return missed


def main(folder):
    """Print the missed goals, or that there are none; return the exit code."""
    missed = missed_goals(json.loads((Path(folder) / "summary.json").read_text()))
    print("\n".join(missed) or f"{folder}: every goal of `make align` is reached")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
