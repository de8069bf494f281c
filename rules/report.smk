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
        modules=modules("forms", "profiles", "laws", "notation", "figures", "law_figures", "excess_figure", "check_figures"),
    output:
        [f"{RESULTS}/figures/{picture}_{{protocol}}.{kind}" for picture in PICTURES for kind in ("svg", "pdf", "png")],
    log:
        f"{RESULTS}/logs/pictures_{{protocol}}.log",
    conda:
        "../envs/analysis.yaml"
    script:
        "../scripts/pictures.py"
