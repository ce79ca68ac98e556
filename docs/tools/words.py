"""Words for names that the code has and does not explain: exit codes, tags, files, checks, numbers.

Each table is compared with the code; a name without words, or words without a name, is an error.
"""

from __future__ import annotations

EXIT_CODES = {
    0: "A result was produced. A signal's `status` says how the decision went.",
    1: "Stopped before the work was done, or a bug.",
    2: "Bad input. The message names the value and what is allowed.",
    3: "No data: unknown symbol, no bar by that date, a date before the model's first fit, a database "
    "that can't be used, or a platform that has not taken every record.",
    4: "The model could not be loaded. With `--strict`: the status is a failure. Of `backtest`: every "
    "decision about a symbol failed.",
    5: "The gate rejected the version, or the first decisions of a training were not replayed as they "
    "were made. Of `verify`, `lineage`, `audit verify` and `cassette verify`: a "
    "check failed. Of `memory`: a sign of memory, or too few days to say.",
}

STATUSES = {
    "ok": "A decision. Only here is HOLD a choice.",
    "abstained": "The agents reached no conclusion within `limits.max_rounds`.",
    "parse_failed": "A model gave no usable reply, also after being asked to correct it.",
    "data_missing": "No bars by that date, too few of them, or the last one is too old.",
    "model_error": "A model could not be reached, or refused.",
    "budget_exceeded": "A call would have cost more than was left of a budget.",
    "levels_rejected": "Entry, stop and target were in an order that can't be meant.",
    "upstream_error": "An external analyst failed.",
    "approval_rejected": "The desk decided, and a human rejected it.",
    "approval_expired": "The desk decided, and no human answered in time.",
}

CHECKS = {
    "out_of_sample_metrics": (
        "gate",
        "A metric that must be known is undefined, or nothing was decided.",
    ),
    "failed_share": ("gate", "More decisions failed than `gate.max_failed_share` allows."),
    "abstained_share": ("gate", "More than half of the decisions abstained."),
    "levels_valid": (
        "gate",
        "A BUY or SELL lacks a level, or stop, entry and target are out of order.",
    ),
    "decided_after_fit": ("gate", "A decision was made by a fit that had seen its day."),
    "served_as_backtested": (
        "gate",
        "The loaded package, run by AutoGen's team, decides otherwise than was recorded.",
    ),
    "answers_repeat": (
        "gate of a decider of your own",
        "The decider answers differently when some days are asked again in another order.",
    ),
    "as_good_as_champion": (
        "gate, where evidence is required",
        "The Sharpe ratio is below the champion's on the days that both decided out of sample.",
    ),
    "package_hashes": (
        "verify",
        "A file is missing, was added, or differs from what was registered.",
    ),
    "replay_equal": ("both", "The replayed signals are not those of the registered record."),
    "features_causal": ("both", "A feature changes when later bars are cut off or replaced."),
    "questions_causal": ("both", "A prompt changes when later bars, news or facts are replaced."),
    "news_dated": ("both", "News without a date, or from after the decision, reached a view."),
    "fills_possible": ("both", "A trade was filled at a price that could not be had."),
    "survives_delay": (
        "both, and evidence",
        "The Sharpe ratio collapses when every decision waits one bar.",
    ),
    "memory_dated": ("both", "A decision could read an outcome that had not closed yet."),
    "clock_free": ("both", "The decision depends on the clock, or code that decides reads one."),
    "accounted_again": (
        "both",
        "A fill, an equity or a metric differs from a plain account of it.",
    ),
    "exits_in_range": (
        "both",
        "A stop or target was touched and not taken, or filled off its bar.",
    ),
    "equity_adds_up": ("both", "Equity is not cash plus position, or a fill paid no commission."),
    "outcomes_again": (
        "both",
        "The outcome of a BUY or SELL, followed bar by bar, is another one.",
    ),
    "news_before_fill": ("both", "A decision was shown news from after the open that filled it."),
    "learned_again": ("both", "Calibration or lessons don't follow from the replayed record."),
    "data_by_hash": (
        "verify --deep; the gate where strong evidence is required",
        "Bars, news or fundamentals are not those that the training read.",
    ),
    "evidence_again": (
        "verify --deep; the gate where strong evidence is required",
        "A number of the evidence, or the grade, is another one when derived again.",
    ),
    "fitted_again": (
        "verify --deep; the gate where strong evidence is required",
        "Searching again on bars that end with the fold finds another policy.",
    ),
    "training_causal": (
        "verify --deep; the gate where strong evidence is required",
        "Training changes when the bars after the fold are replaced by nonsense.",
    ),
    "signal_as_decided": (
        "lineage",
        "The stored signal is not the one that the run was tagged with.",
    ),
    "audit_as_written": (
        "lineage",
        "The audit of the run was changed, or its head is another one.",
    ),
    "package_as_registered": ("lineage", "The files of the version are not those that decided."),
    "prompts_as_registered": (
        "lineage",
        "A prompt in MLflow's registry has another text, or is gone.",
    ),
}

EVIDENCE_CHECKS = {
    "alpha_above_zero": "Alpha (Jensen 1968) may be zero or below; `evidence/p_alpha`.",
    "better_than_random_entry": "Random placements of the same trades earn as much too often; "
    "`evidence/p_random_entry`.",
    "alpha_far_above_zero": "Alpha is less than 3 standard errors above zero; `evidence/t_alpha`.",
    "sharpe_above_zero": "The true Sharpe ratio may be zero or below; `evidence/probabilistic_sharpe`.",
    "better_than_buy_and_hold": "The Sharpe ratio may not exceed that of holding; "
    "`evidence/p_sharpe_difference`.",
    "above_the_best_of_chance": "The best of as many policies without skill would do as well; "
    "`evidence/deflated_sharpe`.",
    "costs_may_double": "Break-even costs are less than `gate.cost_margin` times the assumed costs; "
    "`evidence/cost_margin`.",
    "survives_delay": "Waiting one bar costs more than half of the Sharpe ratio; `evidence/p_delay`.",
    "no_sign_of_memory": "A probe says that a chat model remembers the days; only with a chat model.",
    "confidence_means_what_it_says": "Confidence says no more than the base rate does; "
    "`evidence/brier_skill_low`. No grade depends on it.",
}

TAGS = {
    "finagent.stage": (
        "every run",
        "Kind of the run: `train`, `backtest`, `infer`, `ablate` or `workflow`.",
    ),
    "finagent.process": (
        "every run",
        "Host and process that writes the run, by which a dead one is told.",
    ),
    "finagent.code": ("every run", "Hash of the running code."),
    "finagent.git_dirty": (
        "runs from a checkout",
        "Whether files of the package differ from the commit.",
    ),
    "finagent.config": ("every run", "Hash of the desk's configuration."),
    "finagent.request": (
        "train",
        "Hash of the request, by which the same training is found again.",
    ),
    "finagent.fitted": ("train", "Whether the fit is complete."),
    "finagent.package": ("every run of a version", "Content hash of the package."),
    "finagent.model_uri": ("every run of a version", "URI of the version."),
    "finagent.model_version": ("every run of a version", "Number of the version."),
    "finagent.model_id": ("every run of a version", "Id of MLflow's logged model."),
    "finagent.training_run_id": ("all but train", "Run that trained the version."),
    "finagent.signal_id": ("infer", "Id of the signal; equal for equal symbol, date and version."),
    "finagent.symbol": ("infer, backtest", "Symbol."),
    "finagent.as_of": ("infer", "Date or time of the decision."),
    "finagent.action": ("infer", "BUY, SELL or HOLD."),
    "finagent.status": ("infer", "Status of the signal."),
    "finagent.audit_head": ("infer, backtest", "Head of the audit's hash chain."),
    "finagent.stored": ("infer", "`no` until the decision is in the database, then `yes`."),
    "finagent.replaces": ("infer", "Run of an earlier decision that this one supersedes."),
    "finagent.same_as_registered": ("backtest", "Whether the signals are the registered ones."),
    "finagent.bars_source": ("train, backtest, infer", "Source of the bars."),
    "finagent.bars_hash": ("train, backtest, infer", "Hash of the bars."),
    "finagent.bars_fetched_at": ("train, backtest, infer", "When a vendor sent them."),
    "finagent.bars_revised": ("train, backtest, infer", "Bars that the vendor has revised since."),
    "finagent.bars_warnings": ("train, backtest, infer", "Notes about odd bars."),
    "finagent.workflow_execution_id": ("runs of a workflow", "Execution that asked for the run."),
    "finagent.platform_execution_id": (
        "runs of a workflow",
        "The platform's own id of the execution.",
    ),
    "finagent.workflow_id": ("runs of a workflow", "Workflow that asked for the run."),
    "finagent.dag_id": ("runs of a workflow", "DAG."),
    "finagent.dag_run_id": ("runs of a workflow", "DAG run."),
    "finagent.task_id": ("runs of a workflow", "Task."),
    "finagent.map_index": ("runs of a workflow", "Index of a mapped task."),
    "finagent.dag_run": ("the run of a DAG run", "DAG run whose record this run is."),
    "finagent.failed": (
        "the run of a DAG run",
        "Why a task failed after its last retry; TASK is its full id, and the index of a mapped one.",
    ),
    "finagent.verdict": ("version", "Verdict of the gate: `passed` or `refused`."),
    "finagent.content_hash": ("version", "Content hash of the package."),
    "finagent.evidence": ("version", "Grade of evidence: `none`, `weak` or `strong`."),
    "finagent.judged_beside": ("version", "Champion that the version was compared with."),
    "finagent.previous": ("version", "Champion before this one."),
    "finagent.champion": ("version", "When and why the version became champion."),
    "finagent.anchor": ("version", "Hashes of all files, which loading compares."),
    "finagent.signature": ("version", "Signature of these hashes."),
    "finagent.prompt_sha256": ("prompt", "Hash of a prompt's text."),
    "finagent.source": ("data set", "Source of the data."),
}

TAG_SHAPES = {"finagent.failed": "finagent.failed/TASK"}
"""Tags that begin with a fixed name, as a page shows them."""

NOT_TAGS = {
    "finagent.bars": "group of entry points",
    "finagent.news": "group of entry points",
    "finagent.fundamentals": "group of entry points",
    "finagent.db": "file of the database",
}
"""Names that begin like a tag and are none."""

FILES = {
    "request.json": ("train", "Parameters of the training."),
    "config.yaml": ("train", "The desk, with the defaults filled in."),
    "policy.json": ("train", "Fitted policies, each with the dates from which it is valid."),
    "trials.json": ("train", "Policies that the search tried, for the deflated ratio."),
    "agent_graph.json": ("train", "The agent team as AutoGen's component JSON."),
    "gate.json": ("train", "Verdict, checks and evidence."),
    "window.json": ("train", "Returns of the portfolio, which a later version is compared with."),
    "returns.csv": ("train", "Returns by bar, of the desk and of buy and hold."),
    "report.md": ("train", "The report as text."),
    "report.html": ("train", "The report as a page with charts."),
    "MODEL_CARD.md": ("train", "The model card."),
    "ledgers/SYMBOL.parquet": ("train", "Every out-of-sample signal of a symbol."),
    "ledger.parquet": ("backtest", "Every signal, one row each."),
    "trades.parquet": ("backtest", "Every trade, one row each."),
    "equity_SYMBOL.html": ("backtest", "Equity as a page."),
    "equity_SYMBOL.png": ("backtest", "Equity as a picture."),
    "facts.json": ("backtest", "Returns and costs, from which the evidence is computed."),
    "outcome.json": ("backtest", "Metrics, and what is needed to finish the training."),
    "closed_calls.jsonl": ("backtest", "Outcome of each BUY and SELL."),
    "cassette.jsonl": ("backtest within a training", "Recorded replies of the chat models."),
    "autogen_conversation.jsonl": ("infer, backtest", "Every message of the agents."),
    "audit.jsonl": ("infer, backtest", "Every step, each line chained to the one before."),
    "signal.json": ("infer", "The signal."),
    "market_data_snapshot.json": ("infer", "Bars and news that the decision saw."),
    "chart.html": ("infer", "Bars with entry, stop and target, as a page."),
    "chart.png": ("infer", "Bars with entry, stop and target, as a picture."),
    "bars.json": ("train, backtest, infer", "Source and hash of the bars."),
    "ablation.json": ("ablate", "Result of each variant of the desk."),
    "ablation.md": ("ablate", "The same as a table."),
    "ablation.png": ("ablate", "The same as a picture."),
    "memory.json": ("train, after `finagent memory`", "Result of the memory probes."),
    "asked.json": ("the run of a DAG run", "Parameters that the DAG run was triggered with."),
    "summary.json": ("the run of a DAG run", "Outcome of each symbol."),
}

PARAMS = {
    "client": ("every run", "Client of the desk's model."),
    "model": ("every run", "Names of all models, joined by `+`."),
    "preset": (
        "every run",
        "Preset whose agents the desk has; `own` where the agents are those of no preset.",
    ),
    "team": ("every run", "Agents, in their order."),
    "max_rounds": ("every run", "`limits.max_rounds`, as a call narrowed it."),
    "debate_rounds": ("every run", "Rounds of the debate."),
    "max_tokens": ("every run", "`limits.max_tokens`."),
    "budget_usd": ("every run", "`limits.budget_usd`, as a call narrowed it."),
    "wall_clock_s": ("every run", "`limits.wall_clock_s`."),
    "prices_as_of": ("every run with a chat model", "Oldest date of the prices that apply."),
    "mode": ("every run", "Mode of the replies; of a DAG run its own mode."),
    "bars": ("train, backtest, infer, ablate", "Source of the bars."),
    "bars_until": ("backtest, infer", "Last bar that was seen."),
    "symbol": ("backtest, infer", "Symbol."),
    "symbols": ("train, ablate, the run of a DAG run", "Symbols."),
    "as_of": ("infer, the run of a DAG run", "Date or time of the decision."),
    "desk": ("infer", "URI of the model, or file of the desk, that decided."),
    "model_uri": ("ablate, the run of a DAG run", "Version that decided."),
}

METRICS = {
    "exposure": ("fraction", "Share of bars with an open position."),
    "turnover": ("a year", "Traded notional over mean equity, a year; undefined below a year."),
    "closed_trades": ("count", "Closed trades."),
    "cancelled_entries": ("count", "Entries that were decided and never filled."),
    "hold_share": ("fraction", "Share of decisions that are HOLD."),
    "failed_share": ("fraction", "Share of decisions that failed."),
    "model_cost_usd": (
        "US dollars",
        "Cost of the chat models at list price; undefined without one.",
    ),
    "total_return_after_model_cost": ("fraction", "Total return with that cost paid at the end."),
    "signals": ("count", "Symbols of a DAG's run that have a signal; of that run alone."),
    "without_signal": ("count", "Symbols of a DAG's run that have none; of that run alone."),
    "equity": ("money", "Equity by bar; only a backtest's run has it, as a curve."),
    "drawdown": ("fraction", "Drawdown by bar; only a backtest's run has it, as a curve."),
    "confidence_score": ("0 to 100", "Confidence of the signal (infer)."),
    "tokens": ("count", "Tokens of the decision (infer)."),
}

UNITS = {
    "total_return": "fraction",
    "cagr": "fraction a year",
    "volatility": "fraction a year",
    "sharpe": "ratio, annual",
    "sortino": "ratio, annual",
    "max_drawdown": "fraction",
    "max_drawdown_bars": "bars",
    "calmar": "ratio",
    "value_at_risk_95": "fraction",
    "expected_shortfall_95": "fraction",
    "hit_rate": "fraction",
    "profit_factor": "ratio",
    "expectancy": "money",
}

EVIDENCE = {
    "observations": ("bars", "Out-of-sample returns of the portfolio."),
    "sharpe": ("ratio, annual", "Sharpe ratio of the portfolio."),
    "sharpe_low": ("ratio, annual", "Lower end of its bootstrap interval."),
    "sharpe_high": ("ratio, annual", "Upper end of its bootstrap interval."),
    "benchmark_sharpe": ("ratio, annual", "Sharpe ratio of buy and hold."),
    "alpha": ("fraction a year", "Return beside holding (Jensen 1968)."),
    "appraisal_ratio": ("ratio, annual", "Alpha over its own risk (Treynor and Black 1973)."),
    "t_alpha": ("ratio", "Alpha over its standard error."),
    "p_alpha": ("p-value", "That alpha is not above 0."),
    "p_random_entry": ("p-value", "Random placements of the same trades that earn as much."),
    "p_sharpe_difference": ("p-value", "That the Sharpe ratio is not above that of holding."),
    "p_delay": ("p-value", "That waiting one bar costs nothing of the Sharpe ratio."),
    "probabilistic_sharpe": ("probability", "That the true Sharpe ratio is above 0."),
    "deflated_sharpe": ("probability", "That alpha over its risk exceeds the best of chance."),
    "deflated_hurdle": ("ratio, annual", "The best of chance, for independent policies."),
    "deflated_hurdle_observed": ("ratio, annual", "The same by the policies that were tried."),
    "configurations": ("count", "Policies that were tried, earlier trainings included."),
    "scorings": ("count", "Times that a policy was scored."),
    "earlier_trainings": ("count", "Trainings before on the same bars and name."),
    "minimum_track_record": ("bars", "Returns needed to tell the Sharpe ratio from 0."),
    "overfitting": ("probability", "That the best policy is below the median out of sample (PBO)."),
    "break_even_commission": ("fraction of a fill", "Commission at which nothing is earned."),
    "cost_margin": ("ratio", "Break-even costs over assumed costs."),
    "lagged_sharpe": ("ratio, annual", "Sharpe ratio when each decision waits one bar."),
    "calibrated_calls": (
        "count",
        "BUY and SELL signals with a calibrated confidence and an outcome.",
    ),
    "calibrated_calls_effective": ("count", "How many independent ones they are worth."),
    "came_true": ("fraction", "Share of them that made money."),
    "brier": ("0 to 1", "Brier score of the confidence that is served."),
    "brier_uncalibrated": ("0 to 1", "Brier score of the raw confidence."),
    "brier_learned": ("0 to 1", "Brier score of the learned calibration."),
    "brier_climatology": ("0 to 1", "Brier score of the base rate known at the time."),
    "brier_skill": ("fraction", "1 less the learned score over the base rate's."),
    "brier_skill_low": ("fraction", "Lower end of its interval."),
    "brier_skill_high": ("fraction", "Upper end of its interval."),
    "brier_reliability": ("0 to 1", "Reliability part of the Brier score (Murphy 1973)."),
    "brier_resolution": ("0 to 1", "Resolution part."),
    "brier_uncertainty": ("0 to 1", "Uncertainty part."),
    "log_loss": ("nats", "Logarithmic loss of the learned calibration."),
    "log_skill": ("fraction", "1 less that loss over the base rate's."),
    "log_skill_low": ("fraction", "Lower end of its interval."),
    "log_skill_high": ("fraction", "Upper end of its interval."),
    "calibration_slope": ("ratio", "Cox's slope: 1 is calibrated, 0 says nothing."),
    "calibration_slope_low": ("ratio", "Lower end of its interval."),
    "calibration_slope_high": ("ratio", "Upper end of its interval."),
    "calibration_error": ("fraction", "Expected calibration error of the served confidence."),
    "calibration_error_uncalibrated": ("fraction", "The same of the raw confidence."),
    "days_before": ("count", "Days that a chat model may remember; with a chat model only."),
    "days_after": ("count", "Days that it can't remember."),
    "sharpe_before": ("ratio, annual", "Sharpe ratio on the former."),
    "sharpe_after": ("ratio, annual", "Sharpe ratio on the latter."),
    "excess_before": ("fraction a year", "Return beside holding on the former."),
    "excess_after": ("fraction a year", "Return beside holding on the latter."),
    "excess_decay": ("fraction a year", "The former less the latter."),
    "excess_decay_low": ("fraction a year", "Lower end of its interval."),
    "excess_decay_high": ("fraction a year", "Upper end of its interval."),
}
