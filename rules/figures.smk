# Pictures for people: the combined figure, those that show how well each law is known, and those of the bits.

KINDS = ["svg", "pdf", "png"]
LAW_PICTURES = ["curves", "contours", "excess", "residuals", "identifiability", "heldout"]
BIT_PICTURES = ["overview", "audit", "context", "position"]


rule figure:
    input:
        cells=rules.table.output.cells,
        classical=rules.bits.output.classical if CELLS else [],
        laws=if_law(LAWS),
        modules=modules_of("figure"),
    output:
        svg=f"{RESULTS}/figures/scaling.svg",
        pdf=f"{RESULTS}/figures/scaling.pdf",
        png=picture("scaling", protocol="both"),
    log:
        f"{RESULTS}/logs/figure.log",
    benchmark:
        f"{RESULTS}/benchmarks/figure.tsv"
    conda:
        "../envs/analysis.yaml"
    message:
        "Draw the combined figure"
    script:
        "../scripts/figure.py"


rule pictures:
    input:
        cells=rules.table.output.cells,
        laws=LAWS,
        modules=modules_of("pictures"),
    output:
        [f"{RESULTS}/figures/{name}_{{protocol}}.{kind}" for name in LAW_PICTURES for kind in ("svg", "pdf")],
        pngs=[picture(name, f"{name}_{{protocol}}", "{protocol}") for name in LAW_PICTURES],
    log:
        f"{RESULTS}/logs/pictures_{{protocol}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/pictures/{{protocol}}.tsv"
    conda:
        "../envs/analysis.yaml"
    message:
        "Draw the laws of the {wildcards.protocol} ratio and how well they are known"
    script:
        "../scripts/pictures.py"


rule bit_figures:
    input:
        cells=rules.table.output.cells,
        classical=rules.bits.output.classical,
        audit=rules.bits.output.audit,
        context=rules.context.output.context,
        curves=rules.context.output.curves,
        laws=rules.context.output.laws,
        halves=rules.context.output.halves,
        modules=modules_of("bit_figures"),
    output:
        **{f"{name}_{kind}": f"{RESULTS}/figures/{name}.{kind}" for name in BIT_PICTURES for kind in ("svg", "pdf")},
        **{f"{name}_png": picture(name) for name in BIT_PICTURES},
    log:
        f"{RESULTS}/logs/bit_figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/bit_figures.tsv"
    conda:
        "../envs/analysis.yaml"
    message:
        "Draw where the bits go"
    script:
        "../scripts/bit_figures.py"


rule laws_together:
    input:
        laws=LAWS,
        classical=rules.bits.output.classical if CELLS else [],
        modules=modules_of("laws_together"),
    output:
        table=f"{RESULTS}/tables/laws_together.csv",
        svg=f"{RESULTS}/figures/exponents.svg",
        pdf=f"{RESULTS}/figures/exponents.pdf",
        png=picture("exponents", protocol="both"),
    log:
        f"{RESULTS}/logs/laws_together.log",
    benchmark:
        f"{RESULTS}/benchmarks/laws_together.tsv"
    conda:
        "../envs/analysis.yaml"
    message:
        "Put the laws side by side: exponents, exchange rates, crossings"
    script:
        "../scripts/laws_together.py"


BITS = [*rules.bits.output, *rules.context.output, *rules.bit_figures.output] if CELLS else []
