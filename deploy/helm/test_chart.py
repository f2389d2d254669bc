#!/usr/bin/env python3
"""Renders the chart for every values file in lsa/ci and judges what comes out; every one in bad/ must be refused.

    pip install helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 pyyaml
    test_chart.py [--bin target/release]

It needs no cluster, and proves nothing about one: no API server has seen these objects. With --bin it also asks the two
binaries whether they know the flags that the chart passes. Exit code 1 on any failure.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile

import helm_python as helm
import kubernetes_validate
import yaml
from kubernetes_validate.utils import ValidationError

HERE = pathlib.Path(__file__).resolve().parent
CHART = HERE / "lsa"
RELEASE, NAMESPACE = "demo", "layers"
# The oldest that Chart.yaml allows, and the newest that kubernetes-validate knows.
KUBERNETES = ["1.27", "1.37"]
# Beyond --grace, by which a worker has ended by itself; a busy node is slow to notice.
GRACE_MARGIN_S = 10
SECRET_NAME = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD)$")
SECRET_VALUE = re.compile(r"AKIA[0-9A-Z]{8}|hf_[A-Za-z0-9]{8}|-----BEGIN [A-Z ]*PRIVATE KEY")


class Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, of which YAML silently takes the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load(path):
    return yaml.load(path.read_text(), Loader) or {}


def render(chart, values):
    """The objects that the chart makes of these values, and the notes it ends with."""
    files = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    notes = "".join(text for path, text in files.items() if path.endswith("NOTES.txt"))
    documents = [
        document
        for path, text in sorted(files.items())
        if not path.endswith("NOTES.txt")
        for document in yaml.load_all(text, Loader)
        if document
    ]
    return documents, notes


def merged(below, above):
    """`above` over `below`, as Helm does it."""
    both = isinstance(below, dict) and isinstance(above, dict)
    return {key: merged(below.get(key), above.get(key, below.get(key))) for key in {**below, **above}} if both else above


def title(document):
    return f"{document['kind']}/{document['metadata']['name']}"


class Rendered:
    """What one values file came to."""

    def __init__(self, documents, values):
        self.documents = documents
        # With the chart's defaults below.
        self.values = values
        self.deployments = {
            document["metadata"]["labels"]["app.kubernetes.io/component"]: document
            for document in documents
            if document["kind"] == "Deployment"
        }

    def of(self, kind):
        return [document for document in self.documents if document["kind"] == kind]

    def pods(self):
        """Component, pod spec, its one container, and the container's flags."""
        for component, deployment in self.deployments.items():
            pod = deployment["spec"]["template"]["spec"]
            container = pod["containers"][0]
            yield component, pod, container, flags(container)

    def selected(self, labels):
        """The components whose pods have these labels."""
        return [
            component
            for component, deployment in self.deployments.items()
            if labels.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
        ]


def flags(container):
    pairs = (argument[2:].partition("=") for argument in container["args"] if argument.startswith("--"))
    return {name: value for name, _, value in pairs}


# ---- The checks. Each takes what was rendered, yields what is wrong, and says by its first line what it is about.


def check_objects(rendered):
    """every object has a name of its own, and there are two Deployments"""
    titles = [title(document) for document in rendered.documents]
    yield from (f"{name} stands twice" for name in set(titles) if titles.count(name) > 1)
    if set(rendered.deployments) != {"coordinator", "worker"}:
        yield f"Deployments of {sorted(rendered.deployments)}"


def check_selectors(rendered):
    """selectors of Deployments, Service, PodDisruptionBudget and NetworkPolicies match the pods of one component"""
    for component, deployment in rendered.deployments.items():
        if rendered.selected(deployment["spec"]["selector"]["matchLabels"]) != [component]:
            yield f"{title(deployment)} does not select its own pods alone"
        for spread in deployment["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            if rendered.selected(spread["labelSelector"]["matchLabels"]) != [component]:
                yield f"{title(deployment)}: a spread constraint is not about its own pods alone"
    wanted = [("Service", "coordinator", lambda spec: spec["selector"])]
    wanted.append(("PodDisruptionBudget", "coordinator", lambda spec: spec["selector"]["matchLabels"]))
    for kind, component, labels in wanted:
        for document in rendered.of(kind):
            if rendered.selected(labels(document["spec"])) != [component]:
                yield f"{title(document)} does not select the pods of the {component}"
    policies = [rendered.selected(policy["spec"]["podSelector"]["matchLabels"]) for policy in rendered.of("NetworkPolicy")]
    if sorted(policies) != ([["coordinator"], ["worker"]] if rendered.values["networkPolicy"]["enabled"] else []):
        yield f"NetworkPolicies are about {policies}"


def check_rollout(rendered):
    """a standby is ready, so that rollouts and drains keep a coordinator; a worker's GPU is free before the next one starts"""
    deployment = rendered.deployments["coordinator"]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    if container["readinessProbe"].get("grpc", {}).get("service") != "":
        yield "a coordinator's readiness is not the gRPC health of the process: a standby would never be ready"
    if deployment["spec"]["strategy"]["rollingUpdate"] != {"maxSurge": 1, "maxUnavailable": 0}:
        yield "a rollout may leave no coordinator"
    if [budget["spec"].get("maxUnavailable") for budget in rendered.of("PodDisruptionBudget")] != [1]:
        yield "coordinators may be drained together, or never"
    if rendered.deployments["worker"]["spec"]["strategy"]["rollingUpdate"]["maxSurge"] != 0:
        yield "a new worker would wait for the GPU that an old one has"
    if any(service["spec"].get("clusterIP") != "None" for service in rendered.of("Service")):
        yield "a Service would spread requests over leader and standbys"


def check_grace(rendered):
    """pods have longer to go than the worker's --grace"""
    for component, pod, _, given in rendered.pods():
        grace = int(given.get("grace", 0))
        if component == "worker" and grace != rendered.values["worker"]["graceSeconds"]:
            yield f"--grace is {grace}, worker.graceSeconds says otherwise"
        if pod["terminationGracePeriodSeconds"] < grace + GRACE_MARGIN_S:
            yield f"{component}: killed after {pod['terminationGracePeriodSeconds']} s, with --grace={grace}"


def check_ports(rendered):
    """every probe, Service and NetworkPolicy names a port that exists, and the process listens on it"""
    named = {}
    for component, _, container, given in rendered.pods():
        ports = named[component] = {port["name"]: port["containerPort"] for port in container["ports"]}
        listened = {int(given[flag].rpartition(":")[2]) for flag in ("listen", "listen-http") if flag in given}
        if listened != set(ports.values()):
            yield f"{component} listens on {sorted(listened)}, its ports are {ports}"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            for how in ("grpc", "httpGet"):
                port = container[probe].get(how, {}).get("port")
                if port is not None and port not in ports and port not in ports.values():
                    yield f"{component}: {probe} asks port {port}, which does not exist"
            if container[probe].get("grpc", {}).get("port", ports.get("grpc")) != ports.get("grpc"):
                yield f"{component}: {probe} speaks gRPC to another port"
        if "advertise" in given and given["advertise"] != f"http://$(POD_IP):{ports['grpc']}":
            yield f"{component}: --advertise is {given['advertise']}"
    for service in rendered.of("Service"):
        for port in service["spec"]["ports"]:
            if named["coordinator"].get(port["targetPort"]) != port["port"]:
                yield f"{title(service)}: port {port['name']} leads nowhere"
    for policy in rendered.of("NetworkPolicy"):
        (component,) = rendered.selected(policy["spec"]["podSelector"]["matchLabels"])
        for rule in policy["spec"]["ingress"]:
            if not rule.get("from") or not all(rule["from"]):
                yield f"{title(policy)} lets everybody in"
            for port in rule.get("ports", []):
                if port["port"] not in named[component]:
                    yield f"{title(policy)}: port {port['port']} does not exist"


def check_bucket(rendered):
    """coordinator and worker work around the bucket of the values, and no other address"""
    for component, _, _, given in rendered.pods():
        if given.get("store") != rendered.values["bucket"]["url"]:
            yield f"{component}: --store is {given.get('store')}"
    if "coordinator" in flags(rendered.deployments["worker"]["spec"]["template"]["spec"]["containers"][0]):
        yield "workers are told an address, which would not follow the leader"


def check_secrets(rendered):
    """secrets come by reference only"""
    yield from (f"{title(document)} is made by the chart" for document in rendered.of("Secret"))
    for component, _, container, _ in rendered.pods():
        for variable in container["env"]:
            if SECRET_NAME.search(variable["name"]) and "valueFrom" not in variable:
                yield f"{component}: {variable['name']} is a literal"
        sources = [source["secretRef"]["name"] for source in container.get("envFrom", [])]
        if sources != [name for name in [rendered.values["bucket"]["credentialsSecret"]] if name]:
            yield f"{component}: environment from {sources}"
        names = [variable["name"] for variable in container["env"]]
        yield from (f"{component}: {name} is set twice" for name in set(names) if names.count(name) > 1)
    if found := SECRET_VALUE.search(json.dumps(rendered.documents)):
        yield f"something like a secret: {found.group(0)}"


def check_confinement(rendered):
    """pods run as a user without rights, on a root file system that cannot be written"""
    for component, pod, container, _ in rendered.pods():
        whole, own = pod["securityContext"], container["securityContext"]
        wanted = {
            "runs as root": whole.get("runAsNonRoot") is True and whole.get("runAsUser", 0) > 0 and whole.get("runAsGroup", 0) > 0,
            "has no seccomp profile": whole.get("seccompProfile") == {"type": "RuntimeDefault"},
            "may gain privileges": own.get("allowPrivilegeEscalation") is False and not own.get("privileged"),
            "has capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "writes to its root file system": own.get("readOnlyRootFilesystem") is True,
            "has a token for the API": pod.get("automountServiceAccountToken") is False,
            "shares a namespace of its node": not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
            "has more than one container": len(pod["containers"]) == 1 and not pod.get("initContainers"),
        }
        yield from (f"{component} {fault}" for fault, is_well in wanted.items() if not is_well)
        accounts = {account["metadata"]["name"] for account in rendered.of("ServiceAccount")}
        if rendered.values[component]["serviceAccount"]["create"] != (pod["serviceAccountName"] in accounts):
            yield f"{component}: service account {pod['serviceAccountName']}, and the chart makes {sorted(accounts)}"


def check_volumes(rendered):
    """what is written has a volume, and what is on a node's disk or in its memory has a limit"""
    for component, pod, container, _ in rendered.pods():
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        if {mount["name"] for mount in mounts.values()} != set(volumes):
            yield f"{component} mounts {sorted(mount['name'] for mount in mounts.values())}, it has {sorted(volumes)}"
        for volume in volumes.values():
            if "hostPath" in volume or ("emptyDir" in volume and not volume["emptyDir"].get("sizeLimit")):
                yield f"{component}: volume {volume['name']} has no limit"
        writable = [path for path, mount in mounts.items() if not mount.get("readOnly")]
        variables = {variable["name"]: variable.get("value", "") for variable in container["env"]}
        if variables.get("XDG_CACHE_HOME") not in writable or "/tmp" not in writable:
            yield f"{component} has nowhere to write: {writable}"
        if ca := variables.get("AWS_CA_BUNDLE"):
            folder, _, name = ca.rpartition("/")
            if not mounts.get(folder, {}).get("readOnly") or name != rendered.values["bucket"]["caConfigMap"]["key"]:
                yield f"{component}: AWS_CA_BUNDLE is {ca}, which is not mounted"
        elif rendered.values["bucket"]["caConfigMap"]["name"]:
            yield f"{component} knows nothing of bucket.caConfigMap"


def check_images(rendered):
    """images are pinned by tag or digest, and each container runs its own program"""
    for component, _, container, _ in rendered.pods():
        image, command = container["image"], container["command"]
        if not re.search(r"(@sha256:[0-9a-f]{64}|:[A-Za-z0-9_][A-Za-z0-9_.-]*)$", image) or image.endswith(":latest"):
            yield f"{component}: image {image} is not pinned"
        if command != [f"lsa-{component}"] or f"lsa-{component}" not in image:
            yield f"{component}: runs {command} of {image}"


def check_resources(rendered):
    """CPU and memory are asked for, memory is limited, and exactly a worker with a GPU asks for one"""
    for component, pod, container, given in rendered.pods():
        resources = container["resources"]
        if not {"cpu", "memory"} <= set(resources.get("requests", {})) or "memory" not in resources.get("limits", {}):
            yield f"{component}: resources are {resources}"
        gpus = resources["limits"].get("nvidia.com/gpu", 0)
        if gpus != (rendered.values["worker"]["gpus"] if component == "worker" else 0):
            yield f"{component} has {gpus} GPUs"
        if component == "worker" and given["device"] != ("cuda:0" if gpus else "cpu"):
            yield f"a worker with {gpus} GPUs computes on {given['device']}"
        if gpus and not any(toleration.get("key") == "nvidia.com/gpu" for toleration in pod.get("tolerations", [])):
            yield "a worker with a GPU is kept away from nodes that have one"


CHECKS = [check for name, check in list(globals().items()) if name.startswith("check_")]


# ---- Everything once, and its account.


class Account:
    def __init__(self):
        self.n_passed, self.n_failed = 0, 0

    def settle(self, what, faults):
        """Prints one line, or one for each fault."""
        faults = list(faults)
        if faults:
            self.n_failed += 1
        else:
            self.n_passed += 1
        for line in [f"FAIL  {what}: {fault}" for fault in faults] or [f"pass  {what}"]:
            print(line)


def attempt(check, *arguments):
    """A rendered chart may be too broken to be asked at all."""
    try:
        yield from check(*arguments)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        yield f"cannot be checked: {type(error).__name__}: {error}"


def validate(documents, version):
    for document in documents:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except ValidationError as error:
            yield f"{title(document)}: {'.'.join(map(str, error.path))}: {' '.join(error.message.split())[:300]}"


def lint(values):
    report = helm.lint(str(CHART), values, strict=True, namespace=NAMESPACE)
    # An icon is recommended, of which an internal chart has none.
    yield from (f"{message['path']}: {message['error']}" for message in report["messages"] if message["severity"] >= 2)


def refused(chart, path):
    first = path.read_text().splitlines()[0]
    expected = first.removeprefix("# refused: ")
    if expected == first:
        yield "its first line does not say why it is refused"
        return
    try:
        render(chart, load(path))
        yield "rendered"
    except helm.HelmError as error:
        message = " ".join(str(error).split())
        if expected not in message:
            yield f"refused, but not for the right reason: {message}"


def documented(values, schema, path=""):
    """That values.yaml and the schema know the same names."""
    if "$ref" in schema:
        schema = load(CHART / "values.schema.json")["definitions"][schema["$ref"].rpartition("/")[2]]
    if "properties" not in schema or not isinstance(values, dict):
        return
    if schema.get("additionalProperties") is not False:
        yield f"{path or 'values'}: the schema takes any name"
    for name in sorted(set(values) ^ (set(schema["properties"]) - {"global"})):
        yield f"{path}/{name} is only in one of values.yaml and values.schema.json"
    for name in set(values) & set(schema["properties"]):
        yield from documented(values[name], schema["properties"][name], f"{path}/{name}")


def packaged():
    """That tests' values do not travel with the chart."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(helm.package(str(CHART), destination=folder)) as archive:
            names = archive.getnames()
    yield from (f"{name} is part of it" for name in names if "/ci/" in name or "/bad/" in name)
    if "lsa/values.schema.json" not in names:
        yield "the schema is no part of it"


def known_flags(rendered, folder):
    for component, _, _, given in rendered.pods():
        text = subprocess.run([folder / f"lsa-{component}", "serve", "--help"], capture_output=True, text=True, check=True).stdout
        known = set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)", text))
        yield from (f"lsa-{component} serve has no --{flag}" for flag in sorted(set(given) - known))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, help="folder of lsa-coordinator and lsa-worker, to check flags against")
    arguments = parser.parse_args()
    account = Account()
    defaults = load(CHART / "values.yaml")
    files, bad = sorted(CHART.glob("ci/*.yaml")), sorted(HERE.glob("bad/*.yaml"))
    for what, found in [("values in lsa/ci", files), ("values in bad", bad)]:
        account.settle(f"{len(found)} {what}", [] if found else ["none"])
    account.settle("values.yaml and its schema know the same names", documented(defaults, load(CHART / "values.schema.json")))
    account.settle("the package holds the chart alone", packaged())
    with helm.Chart.load(str(CHART)) as chart:
        for path in files:
            case = path.stem.removesuffix("-values")
            account.settle(f"{case}: Helm's own lint, strict", lint(load(path)))
            try:
                documents, notes = render(chart, load(path))
            except (helm.HelmError, yaml.YAMLError) as error:
                account.settle(f"{case}: renders", [" ".join(str(error).split())])
                continue
            for version in KUBERNETES:
                account.settle(f"{case}: {len(documents)} objects as Kubernetes {version} knows them", validate(documents, version))
            rendered = Rendered(documents, merged(defaults, load(path)))
            for check in CHECKS:
                account.settle(f"{case}: {check.__doc__}", attempt(check, rendered))
            account.settle(f"{case}: notes", [notes[:200]] if "<no value>" in notes or "port-forward" not in notes else [])
            last = rendered
        for path in bad:
            account.settle(f"{path.stem} is refused", refused(chart, path))
    if arguments.bin:
        account.settle("the binaries know every flag", attempt(known_flags, last, arguments.bin))
    else:
        print("SKIPPED: whether the binaries know the flags; name their folder with --bin")
    print(f"{account.n_passed} passed, {account.n_failed} failed")
    return 1 if account.n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
