# %% [markdown]
# # From a list of prompts to a routed dataset
#
# Three small models can answer your prompts, and one small student is to learn from the answers. Which model should
# answer which prompt? This notebook measures it on some of the prompts, trains a router on what it has measured, and
# asks **one** model for each of the others. It takes half a minute on two CPU cores, without network: the models are
# those of the tiny world (290 thousand parameters each), which come with persyn-hf.
#
# You need `pip install 'persyn-hf[models]'`.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt

import persyn_hf


PACKAGE = Path(persyn_hf.__file__).parent  # a wheel holds the tiny world, a clone has it beside the package
TINY = next(folder for folder in (PACKAGE / "recipes/tiny", PACKAGE.parent / "recipes/tiny") if folder.is_dir())
ZOO = "persyn:tiny/zoo"  # what comes with persyn has names; yours are Hub ids or folders
HERE = Path("quickstart")  # everything that is made lies here
HERE.mkdir(exist_ok=True)

# %% [markdown]
# ## The prompts
#
# A list of questions with their right answers. The answers are needed for the prompts on which the teachers are
# compared. A file of your own works as well: JSONL, CSV, parquet, or a dataset on the Hub.

# %%
lines = (TINY / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
questions = [json.loads(line) for line in lines[:330]]
(HERE / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions), encoding="utf-8")
for row in questions[:4]:
    print(f"{row['question']}  ->  {row['answer']}")

# %% [markdown]
# ## The experiment
#
# A recipe says what is to be done. It is a YAML file or, as here, a dict. 120 prompts are for *calibration* (every
# teacher answers them), 60 are for *dev* (they judge the router), and the other 150 are the *pool*, which is routed.
# `mix` gives each prompt to a random teacher, for comparison. Wrong answers are left out of the training data.

# %%
TEACHERS = ["qwen-gen", "qwen-math", "gemma-md"]
recipe = {
    "namespace": "me",
    "name": "quickstart",
    "prompts": {
        "path": HERE / "questions.jsonl",
        "columns": {"prompt": "question", "reference": "answer", "topic": "skill"},
        "references": "math",
        "calibration": 120,
        "dev": 60,
    },
    "teachers": [{"name": name, "model": f"{ZOO}/{name}", "family": name.split("-")[0]} for name in TEACHERS],
    "students": [{"name": "student", "model": f"{ZOO}/qwen-student", "family": "qwen"}],
    "strategies": ["persyn", "mix"],
    "generate": {"samples": 2, "max_tokens": 200},
    "train_router": {"kind": "logistic"},
    "mix": {"keep_incorrect": False},
    "until": "mix",
}
plan = persyn_hf.plan(recipe, store=HERE / "store")
print(f"answers to pay for: {plan.to_pay['total']['certain']} for certain, {plan.to_pay['total']['at_most']} at most")
for warning in plan.warnings:
    print(warning)

# %% [markdown]
# ## Run it
#
# Every answer is kept. If you stop this cell and start it again, it goes on where it was; the second run of the whole
# notebook asks nothing. `progress=True` shows bars.

# %%
run = persyn_hf.run(recipe, store=HERE / "store")
for step, ref in run.refs.items():
    print(f"{step:32} {ref}")

# %% [markdown]
# ## Who is good at what?
#
# The quality of an answer is whether it is right. Its *learnability* is how likely the student finds it: the mean
# log-probability per token. The reward weighs both, per prompt, from the worst teacher (0) to the best (1).

# %%
rewards = run.load("rewards-student", split="calibration").to_pandas()
topics = run.load("prompts").items()
topic_of = {row["prompt_id"]: row["topic"] for _, rows in topics for row in rows}
rewards["topic"] = rewards["prompt_id"].map(topic_of)
figure, axes = plt.subplots(1, 3, figsize=(13, 3.4), layout="constrained")
for axis, column, title in zip(
    axes,
    ("quality_raw", "mean_logprob", "reward"),
    ("share of right answers", "learnability (nats per token)", "reward"),
    strict=True,
):
    rewards.pivot_table(index="topic", columns="teacher", values=column)[TEACHERS].plot.bar(
        ax=axis, title=title, legend=False, xlabel="", rot=0
    )
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
figure.savefig(HERE / "rewards.png")

# %% [markdown]
# ## Which prompts went where?
#
# `persyn` sends a prompt to the teacher that the router scores best. *Hit@1* is the share of dev prompts whose teacher
# was (one of) the best, beside chance and the best single teacher.

# %%
router = persyn_hf.load_router(run.refs["router-student"], store=HERE / "store")
for name in ("router", "random", "global_best"):
    print(f"{name:12} Hit@1 {router.metrics[name]['hit_at_1']['value']:.2f}")
assigned = run.load("assignments-student-persyn", split="pool").to_pandas()
assigned["topic"] = assigned["prompt_id"].map(topic_of)
figure, axes = plt.subplots(1, 2, figsize=(13, 3.4), layout="constrained")
shares = assigned.groupby(["topic", "teacher"]).size().unstack(fill_value=0).reindex(columns=TEACHERS, fill_value=0)
shares.plot.bar(
    stacked=True, ax=axes[0], title="prompts of the pool, by topic and teacher", legend=False, xlabel="", rot=0
)
assigned["confidence"].plot.hist(bins=20, range=(0, 1), ax=axes[1], title="how sure the router is of its choice")
axes[1].set(xlabel="confidence", ylabel="prompts")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
figure.savefig(HERE / "routed.png")

# %% [markdown]
# ## The routed dataset
#
# One answer per prompt, in the prompt-completion format of TRL: ready for `SFTTrainer`, or as JSON lines for others.

# %%
data = run.load("sft-student-persyn")["train"]
print(data)
for row in data.select(range(3)):
    print(f"\n{row['teacher']}: {row['prompt'][-1]['content']}\n{row['completion'][0]['content']}")
print(persyn_hf.export(run.refs["sft-student-persyn"], HERE / "training", store=HERE / "store"))

# %% [markdown]
# ## The router on prompts of tomorrow
#
# Texts or conversations; as many as you like.

# %%
new = ["What is 17 times 4?", "Find the largest number in the list 31, 90, 12.", "What is 58 minus 19?"]
for question, row in zip(new, router.predict(new), strict=True):
    print(f"{row['teacher']:10} confidence {row['confidence']:.2f}  {question}")

# %% [markdown]
# ## Answers of your own
#
# The parts work alone, too: grade answers, measure how learnable they are for a student, and make rewards of both.

# %%
answers = [
    {"prompt": "What is 12 + 30?", "teacher": "short", "response": "\\boxed{42}"},
    {"prompt": "What is 12 + 30?", "teacher": "steps", "response": "12 + 30 = 42. \\boxed{42}"},
    {"prompt": "What is 12 + 30?", "teacher": "wrong", "response": "12 + 30 = 43. \\boxed{43}"},
]
quality = persyn_hf.grade(["42"] * len(answers), [row["response"] for row in answers])
learnability = persyn_hf.learnability(f"{ZOO}/qwen-student", answers)
measured = [row | {"quality": q, "learnability": v} for row, q, v in zip(answers, quality, learnability, strict=True)]
persyn_hf.rewards(measured, alpha=0.4).select_columns(
    ["teacher", "quality_raw", "mean_logprob", "reward", "rank"]
).to_pandas()
