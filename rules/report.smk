# Pictures for people: the combined figure, and those that show how well each law is known.

PICTURES = ["curves", "contours", "excess", "residuals", "identifiability", "heldout"]


rule figure:
    input:
        cells=f"{RESULTS}/tables/cells.csv",
        classical=CLASSICAL,
        laws=expand(f"{RESULTS}/laws/{{modality}}.json", modality=MODALITIES),
        modules=modules("forms", "profiles", "laws", "notation", "figures"),
    output:
        svg=f"{RESULTS}/figures/scaling.svg",
        pdf=f"{RESULTS}/figures/scaling.pdf",
        png=f"{RESULTS}/figures/scaling.png",
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
        modules=modules(
            "forms", "profiles", "laws", "notation", "figures", "law_figures", "excess_figure", "check_figures"
        ),
    output:
        [f"{RESULTS}/figures/{picture}_{{protocol}}.{kind}" for picture in PICTURES for kind in ("svg", "pdf", "png")],
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
        modules=modules("figures", "law_figures", "waterfall", "context", "position", "context_figures"),
    output:
        **{
            f"{picture}_{kind}": f"{RESULTS}/figures/{picture}.{kind}"
            for picture in ("audit", "context", "position")
            for kind in ("svg", "pdf", "png")
        },
    log:
        f"{RESULTS}/logs/bit_figures.log",
    conda:
        "../envs/analysis.yaml"
    script:
        "../scripts/bit_figures.py"
