# What a run says: how many cells there are to do, what was found in the end, or why it failed and how to retry.


onstart:
    cells = [job.output.about for job in workflow.dag.needrun_jobs() if job.rule.name == "compress"]
    logs.cells_to_do(f"{RESULTS}/logs/run.json", cells)


onsuccess:
    if not study.has_law(config):
        shape = f"{len(config['models'])} × {len(config['steps'])}"
        print(f"no law: models × steps are {shape}, a law needs 3 × 3: laws and their figures are left out")
    if any(job.rule.name == "page" for job in workflow.dag.jobs):
        print(*findings.ending(RESULTS), sep="\n", file=sys.stderr)


onerror:
    command = [word for word in sys.argv if word not in workflow.dag_settings.targets]
    for job in workflow.scheduler.failed:
        lines = logs.failure(str(job.output[-1]), job.log[0] if job.log else None, command)
        print(*lines, sep="\n", file=sys.stderr)
