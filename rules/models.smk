# Models: GGUF files become checkpoint folders. The ladder is trained here: `snakemake ladder` makes it anew under
# results/ladder; the committed one is data/ladder.

RECIPE = "data/ladder/recipe.yaml"
LADDER = ["ladder-64k", "ladder-141k", "ladder-331k", "ladder-756k", "ladder-1.9m"]


rule ladder:
    input:
        expand("results/ladder/{model}/losses.csv", model=LADDER),


rule ladder_tokenizer:
    input:
        source="data/raw/enwik8/source.json",
        recipe=RECIPE,
        modules=modules("ascii", "ladder"),
    output:
        "results/ladder/tokenizer.json",
    log:
        "results/ladder/logs/tokenizer.log",
    conda:
        "../envs/gpu.yaml"
    script:
        "../scripts/ladder_tokenizer.py"


rule ladder_model:
    input:
        source="data/raw/enwik8/source.json",
        recipe=RECIPE,
        tokenizer="results/ladder/tokenizer.json",
        modules=modules("ascii", "ladder"),
    output:
        losses="results/ladder/{model}/losses.csv",
    log:
        "results/ladder/logs/{model}.log",
    wildcard_constraints:
        model="|".join(LADDER),
    conda:
        "../envs/gpu.yaml"
    threads: threads_of_a_job()
    script:
        "../scripts/ladder_model.py"


rule gguf_model:
    input:
        source="data/raw/{source}/source.json",
        modules=modules("gguf_model"),
    output:
        config="data/models/gguf/{source}/config.json",
        weights="data/models/gguf/{source}/model.safetensors",
        tokenizer="data/models/gguf/{source}/tokenizer.json",
    log:
        f"{RESULTS}/logs/gguf_model/{{source}}.log",
    conda:
        "../envs/gpu.yaml"
    script:
        "../scripts/gguf_model.py"
