# Models. Those on the Hugging Face Hub are fetched, one job a step; GGUF files become checkpoint folders. The ladder is
# trained here: `snakemake ladder` makes it anew under results/ladder; the committed one is data/ladder.

RECIPE = of_repository("data/ladder/recipe.yaml")
LADDER = yaml.safe_load(Path(RECIPE).read_text())  # its sizes and steps are named there alone


rule fetch_model:
    input:
        tokenizer=tokenizer_of_cell,
    output:
        config="data/models/{model}/step{step}/config.json",
        source="data/models/{model}/step{step}/source.json",  # names of weights' files and their hashes, not known before
    log:
        f"{RESULTS}/logs/fetch/{{model}}/step{{step}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch_model/{{model}}/step{{step}}.tsv"
    wildcard_constraints:
        model=any_of(m["name"] for m in config["models"] if "repo" in m),
    localrule: True
    conda:
        "../envs/gpu.yaml"
    params:
        repository=repository_of_model,
        revision=revision_of_checkpoint,
        commit=commit_of_checkpoint,
    message:
        "Fetch {wildcards.model} at step {wildcards.step}"
    script:
        "../scripts/fetch_model.py"


rule fetch_tokenizer:
    output:
        tokenizer="data/tokenizers/{tokenizer}/tokenizer.json",
    log:
        f"{RESULTS}/logs/fetch/tokenizer/{{tokenizer}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch_tokenizer/{{tokenizer}}.tsv"
    wildcard_constraints:
        tokenizer=any_of(name for name, entry in config["tokenizers"].items() if not isinstance(entry, str)),
    localrule: True
    conda:
        "../envs/gpu.yaml"
    params:
        source=repository_of_tokenizer,
    message:
        "Fetch the tokenizer {wildcards.tokenizer}"
    script:
        "../scripts/fetch_tokenizer.py"


rule gguf_model:
    input:
        source=rules.fetch.output.record,
        modules=modules_of("gguf_model"),
    output:
        config="data/models/gguf/{source}/config.json",
        weights="data/models/gguf/{source}/model.safetensors",
        tokenizer="data/models/gguf/{source}/tokenizer.json",
    log:
        f"{RESULTS}/logs/gguf_model/{{source}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/gguf_model/{{source}}.tsv"
    conda:
        "../envs/gpu.yaml"
    message:
        "Convert the GGUF file of {wildcards.source} to a checkpoint"
    script:
        "../scripts/gguf_model.py"


rule ladder_tokenizer:
    input:
        source=rules.fetch.output.record.format(source="enwik8"),
        recipe=RECIPE,
        modules=modules_of("ladder_tokenizer"),
    output:
        tokenizer="results/ladder/tokenizer.json",
    log:
        "results/ladder/logs/tokenizer.log",
    benchmark:
        "results/ladder/benchmarks/tokenizer.tsv"
    conda:
        "../envs/gpu.yaml"
    message:
        "Train the ladder's tokenizer"
    script:
        "../scripts/ladder_tokenizer.py"


rule ladder_model:
    input:
        source=rules.fetch.output.record.format(source="enwik8"),
        recipe=RECIPE,
        tokenizer=rules.ladder_tokenizer.output.tokenizer,
        modules=modules_of("ladder_model"),
    output:
        losses="results/ladder/{model}/losses.csv",
        checkpoints=expand(
            "results/ladder/{{model}}/step{step}/{file}",
            step=LADDER["training"]["checkpoints"],
            file=["config.json", "model.safetensors", "tokenizer.json"],
        ),
    log:
        "results/ladder/logs/{model}.log",
    benchmark:
        "results/ladder/benchmarks/{model}.tsv"
    wildcard_constraints:
        model=any_of(LADDER["models"]),
    conda:
        "../envs/gpu.yaml"
    threads: threads_of_a_job()
    message:
        "Train {wildcards.model}"
    script:
        "../scripts/ladder_model.py"


rule ladder:
    input:
        expand(rules.ladder_model.output.losses, model=LADDER["models"]),
    message:
        "The ladder is trained"
