# What the rules share: what the study is, which files belong to a cell, and what a job takes of a machine.

RESULTS = f"results/{config['study']}"
MODALITIES = [modality["name"] for modality in config["modalities"]]
CELLS = [] if "cells_from" in config else study.cells(config)  # published cells come as ratios: no bytes, no streams
CONTROLS = config["controls"] if CELLS else []
COMPARED = [config["compare_with"]] if "compare_with" in config else []
PROTOCOLS = study.protocols(config)
DATASETS = study.datasets(config)
SOURCES = study.raws(config)
GPU = {"gpu": 1} if config["device"] == "cuda" else {}


# --- of any rule


def modules_of(script):
    """A script and the modules it imports: as inputs, an edit of one reruns the rule and a touch does not."""
    path = f"{workflow.basedir}/scripts/{script}.py"
    return list(map(os.path.relpath, [path, *imports.modules(path)]))


def of_repository(path):
    """A file of the repository, from whichever folder Snakemake runs in."""
    return os.path.relpath(f"{workflow.basedir}/{path}")


def any_of(names):
    """A wildcard's pattern: one of `names`, and nothing when there are none."""
    return "|".join(map(re.escape, names)) or r"(?!)"


def if_law(targets):
    """Targets of the study only where its grid can hold a law; a smaller one ends without laws."""
    return targets if study.has_law(config) else []


def of_cells(pattern, modality=None):
    """`pattern`, a path with {modality}, {model} and {step}, of every measured cell, or of those of one modality."""
    return [pattern.format(modality=m, model=n, step=s) for m, n, s in CELLS if modality in (None, m)]


# --- of a source, a data set, a tokenizer


def of_source(key):
    """A function of wildcards: the setting `key` of what `sources.fetch` takes."""
    return lambda wildcards: SOURCES[wildcards.source][key]


def files_of_folder(wildcards):
    """The files of a local folder are inputs, so that a change of them is seen; other sources have none."""
    source = SOURCES[wildcards.source]["source"]
    if "folder" not in source:
        return []
    found = Path(source["folder"]).glob(source.get("pattern", "*"))
    return sorted(str(path) for path in found if path.is_file())


def source_of_dataset(wildcards):
    return rules.fetch.output.record.format(source=study.raw(config, wildcards.dataset))


def modality_of_dataset(wildcards):
    return DATASETS[wildcards.dataset]


def file_of_tokenizer(wildcards):
    return study.tokenizer(config, wildcards.tokenizer)


def repository_of_tokenizer(wildcards):
    return config["tokenizers"][wildcards.tokenizer]


# --- of a cell


def shards_of_modality(modality):
    return rules.shard.output.manifest.format(dataset=study.dataset(config, modality))


def arrays_of_modality(modality):
    return expand(rules.shard.output.arrays, dataset=study.dataset(config, modality))


def tokens_of(modality, model):
    tokenizer = study.by_name(config, "models", model)["tokenizer"]
    return rules.tokenize.output.tokens.format(dataset=study.dataset(config, modality), tokenizer=tokenizer)


def shards_of_cell(wildcards):
    """The manifest, which stands for the folder."""
    return shards_of_modality(wildcards.modality)


def arrays_of_cell(wildcards):
    """The arrays that the manifest lists: inputs as well, so that one that is gone is made again."""
    return arrays_of_modality(wildcards.modality)


def tokens_of_cell(wildcards):
    return tokens_of(wildcards.modality, wildcards.model)


def tokenizer_of_cell(wildcards):
    return study.tokenizer(config, study.by_name(config, "models", wildcards.model)["tokenizer"])


def config_of_cell(wildcards):
    return f"{study.checkpoint(config, wildcards.model, wildcards.step)}/config.json"


def weights_of_cell(wildcards):
    if "repo" in study.by_name(config, "models", wildcards.model):  # not there yet; source.json holds their hash
        return [f"{study.checkpoint(config, wildcards.model, wildcards.step)}/source.json"]
    folder = Path(study.checkpoint(config, wildcards.model, wildcards.step))
    return sorted(map(str, folder.glob("*.safetensors"))) or [str(folder / "model.safetensors")]


def repository_of_model(wildcards):
    return study.by_name(config, "models", wildcards.model)["repo"]


def revision_of_checkpoint(wildcards):
    return study.revision(config, wildcards.model, wildcards.step)


def commit_of_checkpoint(wildcards):
    """The commit that the configuration names for a checkpoint on the Hub; None leaves it to the revision."""
    commits = study.by_name(config, "models", wildcards.model).get("commits", {})
    return commits.get(revision_of_checkpoint(wildcards))


def context_of_model(wildcards):
    """Positions of a window; None where config.json says it."""
    return study.by_name(config, "models", wildcards.model).get("context")


def bos_of_model(wildcards):
    """The token in front of every window of the lossless pass."""
    return study.by_name(config, "models", wildcards.model).get("bos", "auto")


# --- of the cells together


def chunks_of_modality(wildcards):
    return of_cells(rules.compress.output.table, wildcards.modality)


def picture(name, file=None, protocol="lossless"):
    """The png of a picture, with its caption in Snakemake's report; `file`: its name where that is another."""
    return report(
        f"{RESULTS}/figures/{file or name}.png",
        caption=f"../workflow/report/{name}.rst",
        category="Figures",
        labels={"figure": name, "protocol": protocol},
    )


# --- what a job takes of a machine


def threads_of_a_job():
    """Eight jobs on two processors must not thrash: a job takes as many of the cores given as make one processor."""
    cores = workflow.resource_settings.cores  # none are given on a cluster, where the profile sets threads
    return math.ceil(cores / os.cpu_count()) if cores else 1


def parameters_of_cell(wildcards, input):
    return resources.parameters(study.by_name(config, "models", wildcards.model).get("nominal"), input.weights)


def memory_of_cell(wildcards, input, attempt):
    size = parameters_of_cell(wildcards, input)
    return resources.memory_mb(size, config["precision"], config["device"], attempt, config["max_mem_mb"])


def minutes_of_cell(wildcards, input, attempt):
    size = parameters_of_cell(wildcards, input)
    most = config["max_minutes"]
    bytes_of_chunk = config["chunk_bytes"]  # a token stands for a byte or more
    tokens = config["chunks"] * bytes_of_chunk
    return resources.minutes(size, config["precision"], config["device"], tokens, bytes_of_chunk, attempt, most)
