# Pictures for people: the combined figure, and those that show how well each law is known.

PICTURES = ["curves", "contours", "excess", "residuals", "identifiability", "heldout"]


rule figure:
    input:
        cells=f"{RESULTS}/tables/cells.csv",
        classical=CLASSICAL,
        laws=expand(f"{RESULTS}/laws/{{modality}}.json", modality=MODALITIES),
        modules=modules_of("figure"),
    output:
        svg=f"{RESULTS}/figures/scaling.svg",
        pdf=f"{RESULTS}/figures/scaling.pdf",
        png=report(
            f"{RESULTS}/figures/scaling.png",
            caption="../workflow/report/scaling.rst",
            category="Figures",
            labels={"figure": "scaling", "protocol": "both"},
        ),
    log:
        f"{RESULTS}/logs/figure.log",
    conda:
        "../envs/analysis.yaml"
    script:
        "../scripts/figure.py"


rule pictures:
    input:
        cells=f"{RESULTS}/tables/cells.csv",
        laws=expand(f"{RESULTS}/laws/{{modality}}.json", modality=MODALITIES),
        modules=modules_of("pictures"),
    output:
        [f"{RESULTS}/figures/{picture}_{{protocol}}.{kind}" for picture in PICTURES for kind in ("svg", "pdf")],
        [
            report(
                f"{RESULTS}/figures/{picture}_{{protocol}}.png",
                caption=f"../workflow/report/{picture}.rst",
                category="Figures",
                labels={"figure": picture, "protocol": "{protocol}"},
            )
            for picture in PICTURES
        ],
    log:
        f"{RESULTS}/logs/pictures_{{protocol}}.log",
    conda:
        "../envs/analysis.yaml"
    script:
        "../scripts/pictures.py"


rule bit_figures:
    input:
        audit=f"{RESULTS}/tables/audit.csv",
        context=f"{RESULTS}/tables/context.csv",
        curves=f"{RESULTS}/tables/position.csv",
        laws=f"{RESULTS}/tables/position_laws.csv",
        halves=HALVES,
        modules=modules_of("bit_figures"),
    output:
        **{
            f"{picture}_{kind}": f"{RESULTS}/figures/{picture}.{kind}"
            for picture in ("audit", "context", "position")
            for kind in ("svg", "pdf")
        },
        **{
            f"{picture}_png": report(
                f"{RESULTS}/figures/{picture}.png",
                caption=f"../workflow/report/{picture}.rst",
                category="Figures",
                labels={"figure": picture, "protocol": "lossless"},
            )
            for picture in ("audit", "context", "position")
        },
    log:
        f"{RESULTS}/logs/bit_figures.log",
    conda:
        "../envs/analysis.yaml"
    script:
        "../scripts/bit_figures.py"


# What the page shows of each modality is its first chunk, as the largest model sees it at its last step. Published cells
# come without bytes, streams and jsons: then there is nothing of that to show.
MEASURED = CELLS if "cells_from" not in config else []
LOOKED_AT = f"{config['models'][-1]['name']}/step{config['steps'][-1]}"
BIT_PICTURES = ["audit", "context", "position"] if MEASURED else []
TEMPLATE = ["page.html", "page.css", "page.js", *(f"{picture}.rst" for picture in PICTURES + BIT_PICTURES)]


rule page:
    input:
        cells=f"{RESULTS}/tables/cells.csv",
        laws=expand(f"{RESULTS}/laws/{{modality}}.json", modality=MODALITIES),
        abouts=[f"{RESULTS}/cells/{cell}.json" for cell in MEASURED],
        chunks=[f"{RESULTS}/cells/{m}/{LOOKED_AT}.parquet" for m in MODALITIES if MEASURED],
        shards=[f"data/shards/{study.dataset(config, m)}/manifest.json" for m in MODALITIES if MEASURED],
        tokens=[tokens_of(m, config["models"][-1]["name"]) for m in MODALITIES if MEASURED],
        more=[f"{RESULTS}/tables/{name}.csv" for name in ("classical", "context", "codec") if MEASURED],
        figure=f"{RESULTS}/figures/scaling.svg",
        pictures=[f"{RESULTS}/figures/{picture}_{PROTOCOLS[0]}.png" for picture in PICTURES]
        + [f"{RESULTS}/figures/{picture}.png" for picture in BIT_PICTURES],
        citation=of_repository("CITATION.cff")[0],
        template=of_repository(*(f"workflow/report/{name}" for name in TEMPLATE)),
        modules=modules_of("page"),
    output:
        report(
            f"{RESULTS}/report.html",
            caption="../workflow/report/page.rst",
            category="Page",
            labels={"page": "the whole study"},
        ),
    log:
        f"{RESULTS}/logs/page.log",
    conda:
        "../envs/analysis.yaml"
    params:
        config=config,
    script:
        "../scripts/page.py"
