# Pictures for people.


rule figure:
    input:
        cells=f"{RESULTS}/tables/cells.csv",
        laws=expand(f"{RESULTS}/laws/{{modality}}.json", modality=MODALITIES),
        modules=modules("laws", "figures"),
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
