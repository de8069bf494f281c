# The page for people, and what the study's jobs took. What the page shows of each modality is its first chunk, as the
# largest model sees it at its last step; of published cells there is nothing of that to show.

LARGEST, LAST = config["models"][-1]["name"], config["steps"][-1]
SHOWN = MODALITIES if CELLS else []
PICTURES = [*LAW_PICTURES, "exponents"] + (BIT_PICTURES if CELLS else [])
TEMPLATE = ["page.html", "page.css", "page.js", *(f"{name}.rst" for name in PICTURES)]


rule benchmarks:
    input:  # all that is made before the page; the table is of what lies in benchmarks/ then
        cells=rules.table.output.cells,
        bits=BITS,
        figures=[
            *rules.figure.output,
            *if_law([*rules.laws_together.output, *expand(rules.pictures.output.pngs, protocol=PROTOCOLS)]),
        ],
        modules=modules_of("benchmarks"),
    output:
        table=f"{RESULTS}/tables/benchmarks.csv",
    log:
        f"{RESULTS}/logs/benchmarks.log",
    benchmark:
        f"{RESULTS}/benchmarks/benchmarks.tsv"
    conda:
        "../envs/analysis.yaml"
    params:
        folder=f"{RESULTS}/benchmarks",
    message:
        "Put what the study's jobs took into one table"
    script:
        "../scripts/benchmarks.py"


rule page:
    input:
        cells=rules.table.output.cells,
        laws=if_law(LAWS),
        abouts=of_cells(rules.compress.output.about),
        chunks=expand(rules.compress.output.table, modality=SHOWN, model=LARGEST, step=LAST),
        shards=[shards_of_modality(modality) for modality in SHOWN],
        arrays=[path for modality in SHOWN for path in arrays_of_modality(modality)],
        tokens=[tokens_of(modality, LARGEST) for modality in SHOWN],
        more=([rules.bits.output.classical, rules.context.output.context, rules.bits.output.codec] if CELLS else [])
        + if_law([rules.laws_together.output.table])
        + [rules.benchmarks.output.table],
        figure=rules.figure.output.svg,
        pictures=if_law([*expand(rules.pictures.output.pngs, protocol=PROTOCOLS[0]), rules.laws_together.output.png])
        + ([rules.bit_figures.output[f"{name}_png"] for name in BIT_PICTURES] if CELLS else []),
        citation=of_repository("CITATION.cff"),
        template=[of_repository(f"workflow/report/{name}") for name in TEMPLATE],
        modules=modules_of("page"),
    output:
        page=report(
            f"{RESULTS}/report.html",
            caption="../workflow/report/page.rst",
            category="Page",
            labels={"page": "the whole study"},
        ),
    log:
        f"{RESULTS}/logs/page.log",
    benchmark:
        f"{RESULTS}/benchmarks/page.tsv"
    conda:
        "../envs/analysis.yaml"
    params:
        config=config,
    message:
        "Write the page of the study"
    script:
        "../scripts/page.py"
