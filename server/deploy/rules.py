"""What the manifests must say together, which no schema knows.

    rules.py DATA RENDERED.yaml...

DATA has sample-gateway.toml and sample-remote.toml, which name every setting.
"""

import collections
import pathlib
import re
import sys

import tomllib
import yaml

APP = "app.kubernetes.io/name"
mistakes = []


def must(truth, text):
    if not truth:
        mistakes.append(text)


def settings_of(samples):
    """Every `section.key` of the samples, those in comments too."""
    known = set()
    for path in samples:
        section = ""
        for line in path.read_text().splitlines():
            line = re.sub(r"^# (?=\[|[a-z_]+ = )", "", line)
            if match := re.match(r"\[+([a-z]+)\]+$", line):
                section = match[1] + "."
            elif match := re.match(r"([a-z_]+) = ", line):
                known.add(section + match[1])
    return known


def keys_of(settings):
    for key, value in settings.items():
        tables = value if isinstance(value, list) else [value]
        for table in tables:
            if isinstance(table, dict):
                yield from (f"{key}.{inner}" for inner in table)
            else:
                yield key


def mebibytes(text):
    number, unit = re.fullmatch(r"(\d+)([MG]i)", text).groups()
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


def pod(server, name):
    """A pod that the restricted standard admits, with nothing that it does not need."""
    spec = server["spec"]["template"]["spec"]
    context = spec["securityContext"]
    must(context["runAsNonRoot"] and context["runAsUser"] > 0, f"{name}: runs as root")
    must(context["seccompProfile"]["type"] == "RuntimeDefault", f"{name}: no seccomp profile")
    must(spec["automountServiceAccountToken"] is False, f"{name}: has a token for the API")
    must(server["spec"]["replicas"] == 1, f"{name}: a ledger belongs to one server")
    for container in spec["initContainers"] + spec["containers"]:
        own = container["securityContext"]
        must(own["readOnlyRootFilesystem"], f"{name}: its root can be written")
        must(own["allowPrivilegeEscalation"] is False, f"{name}: can gain privileges")
        must(own["capabilities"] == {"drop": ["ALL"]}, f"{name}: has capabilities")
        must(":" in container["image"] and not container["image"].endswith(":latest"), f"{name}: image has no tag")
        must("memory" in container["resources"]["limits"], f"{name}: no limit of memory")
    return spec


def server_rules(server, settings, known, services):
    namespace, name = server["metadata"]["namespace"], server["metadata"]["name"]
    shown = f"{namespace}/{name}"
    spec = pod(server, shown)
    labels = server["spec"]["template"]["metadata"]["labels"]
    wanted = server["spec"]["selector"]["matchLabels"]
    must(wanted.items() <= labels.items(), f"{shown}: does not select its own pod")
    must({"seco/cell", "seco/server"} <= wanted.keys(), f"{shown}: would take another cell's pod for its own")
    main = spec["containers"][0]
    ports = {(port["containerPort"], port["protocol"]) for port in main["ports"]}

    for key in keys_of(settings):
        must(key in known, f"{shown}: server.toml has {key}, which no sample has")
    number = lambda address: int(address.rsplit(":", 1)[1])
    must((number(settings["listen"]["mesh"]), "UDP") in ports, f"{shown}: its mesh port is not the pod's")
    gateway = settings["index"] == 0
    if gateway:
        device = number(settings["listen"]["device"])
        must({(device, "UDP"), (device, "TCP")} <= ports, f"{shown}: its device port is not the pod's")
    admin = next(port["containerPort"] for port in main["ports"] if port["name"] == "admin")
    must(number(settings["admin"]["listen"]) == admin and settings["admin"]["public"], f"{shown}: cannot be probed")
    probes = {kind: main[kind]["httpGet"]["path"] for kind in ("livenessProbe", "readinessProbe")}
    must(probes == {"livenessProbe": "/healthz", "readinessProbe": "/readyz"}, f"{shown}: probes {probes}")
    wait = settings.get("limits", {}).get("infer_s", 60)
    must(spec["terminationGracePeriodSeconds"] > wait, f"{shown}: is ended before what devices wait for is answered")

    templates = server["spec"]["volumeClaimTemplates"]
    claims = {claim["metadata"]["name"]: claim["spec"]["resources"]["requests"]["storage"] for claim in templates}
    places = {mount["name"]: mount["mountPath"] for mount in main["volumeMounts"]}
    must(settings["state"].startswith(places["state"] + "/"), f"{shown}: the ledger is on no volume of its own")
    must(mebibytes(claims["state"]) > settings["pool"]["disk_mib"] + 1024, f"{shown}: bundles fill its volume")
    opening = settings["identity"]["opening_key"]
    must(opening.startswith(places["identity"] + "/"), f"{shown}: where the ledger ends is not kept")
    must(settings["model"].startswith(places["identity"] + "/"), f"{shown}: the part of the model is not kept")
    must(settings["identity"]["key"].startswith(places["keys"] + "/"), f"{shown}: its key is on a disk")

    for peer in settings["peers"]:
        must((peer["index"] > settings["index"]) == ("address" in peer), f"{shown}: the lower index dials")
        if "address" in peer:
            host, port = peer["address"].split(":")
            service, where = host.split(".")[:2]
            found = services.get((where, service))
            must(found is not None, f"{shown}: nobody is at {host}")
            if found:
                selects = found["spec"]["selector"]
                must(selects.get("seco/server") == peer["name"], f"{shown}: at {host} is not {peer['name']}")
                must(selects.get("seco/cell") == labels["seco/cell"], f"{shown}: at {host} is another cell")
                must(found["spec"]["publishNotReadyAddresses"], f"{shown}: {host} is found only when it is ready")
                must(int(port) == found["spec"]["ports"][0]["port"], f"{shown}: {host} has no port {port}")


def closes(spec):
    both = set(spec["policyTypes"]) == {"Ingress", "Egress"}
    return spec["podSelector"] == {} and both and not spec.get("ingress") and not spec.get("egress")


def selects(selector, labels):
    """Whether a selector takes pods with these labels. An empty one takes all."""
    must(set(selector) <= {"matchLabels"}, f"a policy selects by {sorted(selector)}: these rules know matchLabels alone")
    return selector.get("matchLabels", {}).items() <= labels.items()


def ports(rule, name):
    """What a policy's rule opens, as (port, protocol)."""
    must(rule.get("ports"), f"{name}: opens all ports")
    for port in rule.get("ports", []):
        must(set(port) == {"port", "protocol"}, f"{name}: opens {port}, not one port of one protocol")
        yield (port.get("port"), port.get("protocol"))


def network_rules(everything):
    """Every way that a policy opens, as (from, to, port); `from` is `anyone` where no peer is named."""
    policies = [o for o in everything if o["kind"] == "NetworkPolicy"]
    servers = [o for o in everything if o["kind"] == "StatefulSet"]
    closed = {policy["metadata"]["namespace"] for policy in policies if closes(policy["spec"])}
    ins, outs = set(), set()
    for server in servers:
        namespace = server["metadata"]["namespace"]
        labels = server["spec"]["template"]["metadata"]["labels"]
        me = (namespace, labels["seco/cell"])
        must(namespace in closed, f"{namespace}: is not closed")
        for policy in policies:
            spec = policy["spec"]
            if policy["metadata"]["namespace"] != namespace or not selects(spec["podSelector"], labels):
                continue
            name = f"{namespace}/{policy['metadata']['name']}"
            for rules, found in ((spec.get("ingress", []), ins), (spec.get("egress", []), outs)):
                for rule in rules:
                    opened = list(ports(rule, name))
                    for peer in rule.get("from", rule.get("to", [])) or [{"ipBlock": {}}]:
                        for other in who(peer, namespace, servers):
                            found.update((me, other, port) for port in opened)
    for server in servers:
        settings = server["settings"]
        me = (server["metadata"]["namespace"], server["spec"]["template"]["metadata"]["labels"]["seco/cell"])
        mesh = (7400, "UDP")
        dialled = {(f"seco-{p['name']}", me[1]) for p in settings["peers"] if p["index"] > settings["index"]}
        dialling = {(f"seco-{p['name']}", me[1]) for p in settings["peers"] if p["index"] < settings["index"]}
        reached = {to for m, to, port in outs if m == me and port == mesh}
        must(reached == dialled, f"{me}: reaches others than {dialled}")
        heard = {of for m, of, port in ins if m == me and port == mesh}
        must(heard == dialling, f"{me}: is reached by others than {dialling}")
        reached = {to for m, to, _ in outs if m == me}
        must(reached == dialled | {("kube-system", None)}, f"{me}: reaches {reached}")
        open_to_all = {port for m, of, port in ins if m == me and of == "anyone"}
        devices = {(7443, "UDP"), (7443, "TCP")} if settings["index"] == 0 else set()
        must(open_to_all == devices, f"{me}: anyone reaches {open_to_all}")
        rest = {(of, port) for m, of, port in ins if m == me and of != "anyone" and port != mesh}
        must(rest == {(("monitoring", None), (7490, "TCP"))}, f"{me}: is reached by {rest}")


def who(peer, own, servers):
    """The servers that a policy's peer is, as (namespace, cell); others as (namespace, None). `own`: the policy's."""
    if "ipBlock" in peer:
        return {"anyone"}
    chosen = peer.get("namespaceSelector", {"matchLabels": {"kubernetes.io/metadata.name": own}}).get("matchLabels", {})
    if set(chosen) != {"kubernetes.io/metadata.name"}:
        return {("more namespaces than one", None)}
    namespace = chosen["kubernetes.io/metadata.name"]
    selector = peer.get("podSelector", {})
    if not any(server["metadata"]["namespace"] == namespace for server in servers):
        ours = any(key.startswith("seco/") for key in selector.get("matchLabels", {}))
        return {(namespace, "no such pod" if ours else None)}
    pods = [s["spec"]["template"]["metadata"]["labels"] for s in servers if s["metadata"]["namespace"] == namespace]
    return {(namespace, labels["seco/cell"]) for labels in pods if selects(selector, labels)}


def main():
    data, *files = sys.argv[1:]
    known = settings_of(pathlib.Path(data).glob("sample-*.toml"))
    everything = [o for file in files for o in yaml.safe_load_all(pathlib.Path(file).read_text()) if o]
    names = collections.Counter((o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in everything)
    must(max(names.values()) == 1, f"two have one name: {names.most_common(1)}")
    must(not any(o["kind"] == "Secret" for o in everything), "a Secret is written down")
    services = {(o["metadata"]["namespace"], o["metadata"]["name"]): o for o in everything if o["kind"] == "Service"}
    configs = {(o["metadata"]["namespace"], o["metadata"]["name"]): o for o in everything if o["kind"] == "ConfigMap"}
    servers = [o for o in everything if o["kind"] == "StatefulSet"]
    for server in servers:
        namespace = server["metadata"]["namespace"]
        volume = next(v for v in server["spec"]["template"]["spec"]["volumes"] if v["name"] == "settings")
        server["settings"] = tomllib.loads(configs[namespace, volume["configMap"]["name"]]["data"]["server.toml"])
        server_rules(server, server["settings"], known, services)
    network_rules(everything)
    outside = [key for key, o in services.items() if o["spec"].get("type", "ClusterIP") != "ClusterIP"]
    must(outside == [("seco-gateway", "devices")], f"reached from outside: {outside}")
    front = services["seco-gateway", "devices"]["spec"]
    must({(p["port"], p["protocol"]) for p in front["ports"]} == {(7443, "UDP"), (7443, "TCP")}, "the front's ports")
    keeps = front["sessionAffinity"] == "ClientIP" and front["selector"] == {APP: "seco"}
    must(keeps, "the front keeps no device at a cell")
    budgets = {o["metadata"]["namespace"] for o in everything if o["kind"] == "PodDisruptionBudget"}
    must(budgets == {s["metadata"]["namespace"] for s in servers}, "a namespace without a disruption budget")
    for mistake in mistakes:
        print(mistake)
    if mistakes:
        sys.exit(1)
    cells = len(servers) // 3
    print(f"kubernetes: {len(everything)} objects, {len(servers)} servers in {cells} cells, all as they must be")


main()
