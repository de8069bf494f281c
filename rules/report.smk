# Pictures for people: the combined figure, and those that show how well each law is known.

PICTURES = ["curves", "contours", "excess", "residuals", "identifiability", "heldout"]


rule figure:
    input:
        cells=f"{RESULTS}/tables/cells.csv",
        laws=expand(f"{RESULTS}/laws/{{modality}}.json", modality=MODALITIES),
        modules=modules("forms", "profiles", "laws", "notation", "figures"),
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
        modules=modules("forms", "profiles", "laws", "notation", "figures", "law_figures", "excess_figure", "check_figures"),
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


# what the page shows of each modality is its first chunk, as the largest model sees it at its last step
LOOKED_AT = (config["models"][-1]["name"], config["steps"][-1])
TEMPLATE = ["page.html", "page.css", "page.js", *(f"{picture}.rst" for picture in PICTURES)]


rule page:
    input:
        cells=f"{RESULTS}/tables/cells.csv",
        laws=expand(f"{RESULTS}/laws/{{modality}}.json", modality=MODALITIES),
        abouts=[f"{RESULTS}/cells/{modality}/{model}/step{step}.json" for modality, model, step in study.cells(config)],
        chunks=expand(f"{RESULTS}/cells/{{modality}}/{LOOKED_AT[0]}/step{LOOKED_AT[1]}.parquet", modality=MODALITIES),
        shards=[f"data/shards/{study.dataset(config, modality)}/manifest.json" for modality in MODALITIES],
        tokens=[tokens_of(modality, LOOKED_AT[0]) for modality in MODALITIES],
        figure=f"{RESULTS}/figures/scaling.svg",
        pictures=expand(f"{RESULTS}/figures/{{picture}}_lossless.png", picture=PICTURES),
        citation=of_repository("CITATION.cff"),
        template=of_repository(*(f"workflow/report/{name}" for name in TEMPLATE)),
        modules=modules("findings", "notation", "shards", "tokens", "page", "page_chart", "page_look", "page_tables"),
    output:
        report(
            f"{RESULTS}/report.html", caption="../workflow/report/page.rst", category="Page", labels={"shows": "all"}
        ),
    log:
        f"{RESULTS}/logs/page.log",
    conda:
        "../envs/analysis.yaml"
    params:
        config=config,
    script:
        "../scripts/page.py"
