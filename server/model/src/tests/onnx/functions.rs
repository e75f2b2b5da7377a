//! Functions of a file: what they stand for, and what files could do with them that they must not.

use std::time::{Duration, Instant};

use prost::Message;

use super::{attribute, float, int, node, said, tensor, value};
use crate::Error;
use crate::onnx::file::{Parsed, parse};
use crate::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    attribute_type,
};
use crate::tests::operators::{close, options, run};

fn import(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: domain.to_owned(), version }
}

/// A function of domain `own`.
fn function(name: &str, inputs: &[&str], outputs: &[&str], node: Vec<NodeProto>) -> FunctionProto {
    let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
    FunctionProto {
        name: name.to_owned(),
        domain: "own".to_owned(),
        input: names(inputs),
        output: names(outputs),
        node,
        opset_import: vec![import("", 17)],
        ..Default::default()
    }
}

/// A call of a function of domain `own`.
fn call(name: &str, inputs: &[&str], outputs: &[&str], attributes: &[AttributeProto]) -> NodeProto {
    NodeProto {
        domain: "own".to_owned(),
        attribute: attributes.to_vec(),
        name: format!("call of {name}"),
        ..node(name, inputs, outputs)
    }
}

fn refers(name: &str, kind: i32, to: &str) -> AttributeProto {
    AttributeProto { ref_attr_name: to.to_owned(), ..attribute(name, kind) }
}

fn model(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> ModelProto {
    let graph = GraphProto {
        name: "functions".to_owned(),
        node: nodes,
        initializer: vec![tensor("w", &[2], &[3.0, -1.0])],
        input: vec![value("x", &[1, 2])],
        output: vec![value("y", &[1, 2])],
        ..Default::default()
    };
    ModelProto { graph: Some(graph), opset_import: vec![import("", 17), import("own", 1)], functions }
}

fn answer(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>, x: &[f64]) -> Vec<f64> {
    run(&model(nodes, functions).encode_to_vec(), x).0.concat()
}

/// Parses within a second, on a machine that does something else as well.
fn soon(model: &ModelProto) -> Result<Parsed, Error> {
    let bytes = model.encode_to_vec();
    let start = Instant::now();
    let parsed = parse(&bytes, None);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    parsed
}

fn leaky(of: &[AttributeProto]) -> FunctionProto {
    let mut inner = node("LeakyRelu", &["a"], &["b"]);
    inner.attribute = of.to_vec();
    function("Leaky", &["a"], &["b"], vec![inner])
}

#[test]
fn a_call_is_the_function() {
    // Twice, and with the caller's names inside, which mean something else there.
    let scaled = || {
        let nodes = vec![node("Mul", &["x", "w"], &["y"]), node("Add", &["y", "w"], &["t"])];
        function("Scaled", &["x", "w"], &["t"], nodes)
    };
    let nodes = || vec![call("Scaled", &["x", "w"], &["t"], &[]), call("Scaled", &["t", "w"], &["y"], &[])];
    close(&answer(nodes(), vec![scaled()], &[1.0, 2.0]), &[21.0, 2.0], "twice");
    // Functions of functions.
    let both = function(
        "Both",
        &["p", "q"],
        &["r"],
        vec![call("Scaled", &["s", "q"], &["r"], &[]), call("Scaled", &["p", "q"], &["s"], &[])],
    );
    let outer = || vec![call("Both", &["x", "w"], &["y"], &[])];
    close(&answer(outer(), vec![both.clone(), scaled()], &[1.0, 2.0]), &[21.0, 2.0], "nested");
    // Names that are taken already, and a name for every layer.
    let file = model(
        vec![
            node("Relu", &["x"], &["call of Scaled/y"]),
            call("Scaled", &["call of Scaled/y", "w"], &["y"], &[]),
        ],
        vec![scaled()],
    );
    close(&run(&file.encode_to_vec(), &[1.0, -2.0]).0.concat(), &[6.0, -1.0], "taken names");
    let parsed = soon(&model(outer(), vec![both, scaled()])).unwrap();
    let names: Vec<&str> = parsed.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names[0], "call of Both/call of Scaled/Mul");
}

#[test]
fn attributes_of_calls_reach_the_nodes() {
    let x = [1.0, -2.0];
    let refer = || refers("alpha", attribute_type::FLOAT, "slope");
    let calls = |attributes: &[AttributeProto]| vec![call("Leaky", &["x"], &["y"], attributes)];
    let slope = |value: f32| float("slope", value);
    close(&answer(calls(&[slope(0.5)]), vec![leaky(&[refer()])], &x), &[1.0, -1.0], "given");
    // Neither given nor known: as if the node did not say.
    close(&answer(calls(&[]), vec![leaky(&[refer()])], &x), &[1.0, -0.02], "left out");
    let default = || FunctionProto { attribute_proto: vec![slope(0.25)], ..leaky(&[refer()]) };
    close(&answer(calls(&[]), vec![default()], &x), &[1.0, -0.5], "by default");
    close(&answer(calls(&[slope(1.5)]), vec![default()], &x), &[1.0, -3.0], "given all the same");
    // Through two of them.
    let inner = call("Leaky", &["c"], &["d"], &[refers("slope", attribute_type::FLOAT, "outer")]);
    let outer = function("Outer", &["c"], &["d"], vec![inner]);
    let nodes = vec![call("Outer", &["x"], &["y"], &[float("outer", 2.0)])];
    close(&answer(nodes, vec![outer, default()], &x), &[1.0, -4.0], "passed on");
    let text = said(soon(&model(calls(&[int("slope", 1)]), vec![default()])));
    assert!(text.contains("call of Leaky") && text.contains("slope") && text.contains("type"), "{text}");
    // Outside of a function there is nothing that it could be.
    let mut stray = node("LeakyRelu", &["x"], &["y"]);
    stray.attribute = vec![refer()];
    for functions in [vec![], vec![default()]] {
        assert!(said(soon(&model(vec![stray.clone()], functions))).contains("attribute"));
    }
}

#[test]
fn inputs_outputs_overloads_and_versions() {
    let x = [1.0, -2.0];
    // An input that is left out, an output that nobody wants, one that is an input, and one twice.
    let mut inner = node("Clip", &["a", "low", "high"], &["b"]);
    inner.name = "inner".to_owned();
    let clip = function("Cut", &["a", "low", "high"], &["b"], vec![inner]);
    let nodes = vec![call("Cut", &["x", "", "w1"], &["y"], &[])];
    let mut file = model(nodes, vec![clip]);
    file.graph.as_mut().unwrap().initializer.push(tensor("w1", &[], &[0.5]));
    close(&run(&file.encode_to_vec(), &x).0.concat(), &[0.5, -2.0], "left out");
    let many = || function("Many", &["a"], &["b", "a", "b", "c"], vec![node("Relu", &["a"], &["b"])]);
    let sum = node("Sum", &["p", "q", "r"], &["y"]);
    let nodes = vec![call("Many", &["x"], &["p", "q", "r"], &[]), sum];
    close(&answer(nodes, vec![many()], &x), &[3.0, -2.0], "outputs");
    let text = said(soon(&model(vec![call("Many", &["x"], &["", "", "", "y"], &[])], vec![many()])));
    assert!(text.contains("nothing makes"), "{text}");
    for (inputs, outputs) in [(&["x", "x"][..], &["y"][..]), (&["x"], &["y", "b", "c", "d", "e"])] {
        assert!(
            said(soon(&model(vec![call("Many", inputs, outputs, &[])], vec![many()])))
                .contains("function has")
        );
    }
    // Which of several, and operators of another domain by the same name.
    let of = |op: &str, overload: &str| FunctionProto {
        overload: overload.to_owned(),
        ..function("Some", &["a"], &["b"], vec![node(op, &["a"], &["b"])])
    };
    let functions = || vec![of("Neg", ""), of("Abs", "second")];
    let which =
        |overload: &str| NodeProto { overload: overload.to_owned(), ..call("Some", &["x"], &["y"], &[]) };
    close(&answer(vec![which("")], functions(), &x), &[-1.0, 2.0], "the first");
    close(&answer(vec![which("second")], functions(), &x), &[1.0, 2.0], "the second");
    let error = |model: &ModelProto| crate::read(&model.encode_to_vec(), &options()).unwrap_err().to_string();
    for unknown in [which("third"), NodeProto { domain: "other".to_owned(), ..which("") }] {
        assert!(error(&model(vec![unknown], functions())).contains("some runtime"));
    }
    assert!(said(soon(&model(vec![which("")], vec![of("Neg", ""), of("Abs", "")]))).contains("twice"));
    // Axes of Unsqueeze were an attribute before version 13.
    let mut unsqueeze = node("Unsqueeze", &["a"], &["t"]);
    unsqueeze.attribute = vec![super::ints("axes", &[0])];
    let mut older = function("Older", &["a"], &["b"], vec![unsqueeze, node("Neg", &["t"], &["b"])]);
    assert!(error(&model(vec![call("Older", &["x"], &["y"], &[])], vec![older.clone()])).contains("13"));
    older.opset_import = vec![import("", 11)];
    close(&answer(vec![call("Older", &["x"], &["y"], &[])], vec![older.clone()], &x), &[-1.0, 2.0], "older");
    older.opset_import = vec![import("", 99)];
    assert!(said(soon(&model(vec![call("Older", &["x"], &["y"], &[])], vec![older]))).contains("99"));
    // What stands in a function is named with its call.
    let exp = function("Curve", &["a"], &["b"], vec![node("Exp", &["a"], &["b"])]);
    assert!(
        error(&model(vec![call("Curve", &["x"], &["y"], &[])], vec![exp]))
            .contains("call of Curve/Exp (Exp)")
    );
}

#[test]
fn functions_that_call_each_other_do_not_grow_without_end() {
    let name = |i: usize| format!("F{i}");
    let start = || vec![call("F0", &["x"], &["y"], &[])];
    // Twice as many with each, down to one that does nothing or little.
    for (depth, leaf) in [(30, false), (30, true), (16, true)] {
        let functions = (0..depth)
            .map(|i| {
                let nodes = match (i + 1 < depth, leaf) {
                    (true, _) => {
                        vec![call(&name(i + 1), &["a"], &["t"], &[]), call(&name(i + 1), &["t"], &["b"], &[])]
                    }
                    (false, true) => vec![node("Relu", &["a"], &["b"])],
                    (false, false) => vec![],
                };
                function(&name(i), &["a"], &["b"], nodes)
            })
            .collect();
        let text = said(soon(&model(start(), functions)));
        assert!(text.contains("more than 65536 nodes") && !text.contains("bytes"), "{text}");
    }
    // In a row, which is too deep at some point, and in a circle.
    let chain = |count: usize, last: Vec<NodeProto>| {
        let inner = |i: usize| {
            if i + 1 < count { vec![call(&name(i + 1), &["a"], &["b"], &[])] } else { last.clone() }
        };
        (0..count).map(|i| function(&name(i), &["a"], &["b"], inner(i))).collect::<Vec<_>>()
    };
    close(&answer(start(), chain(32, vec![node("Neg", &["a"], &["b"])]), &[1.0, 2.0]), &[-1.0, -2.0], "deep");
    assert!(said(soon(&model(start(), chain(33, vec![node("Neg", &["a"], &["b"])])))).contains("deep"));
    assert!(said(soon(&model(start(), chain(5000, vec![])))).contains("deep"));
    for count in [1, 2, 20] {
        let back = vec![call("F0", &["a"], &["b"], &[])];
        let text = said(soon(&model(start(), chain(count, back))));
        assert!(text.contains("calls itself"), "{text}");
    }
}

/// What is small in a file and large in memory, again and again.
#[test]
fn functions_do_not_copy_without_end() {
    let long = "n".repeat(1 << 20);
    let many = |count: usize| (0..count).map(|i| i.to_string()).collect::<Vec<_>>();
    let twice = |name: &str, inner: &str| {
        let nodes = (0..60).map(|i| {
            let (from, to) = (if i == 0 { "a".to_owned() } else { format!("t{i}") }, format!("t{}", i + 1));
            call(inner, &[&from], &[if i == 59 { "b" } else { &to }], &[])
        });
        function(name, &["a"], &["b"], nodes.collect())
    };
    let wide = FunctionProto { input: [vec!["a".to_owned()], many(100_000)].concat(), ..leaky(&[]) };
    let mut read = leaky(&[]);
    read.node[0].input = [vec!["a".to_owned()], many(50_000)].concat();
    let mut named = leaky(&[]);
    named.node[0].name = long.clone();
    named.node.push(node("Relu", &[&long], &[&format!("{long}2")]));
    let heavy = AttributeProto { s: vec![0; 1 << 20], ..attribute("slope", attribute_type::STRING) };
    let default = FunctionProto {
        attribute_proto: vec![heavy],
        ..leaky(&vec![refers("alpha", attribute_type::STRING, "slope"); 1000])
    };
    let small = || AttributeProto { s: vec![0], ..attribute("s", attribute_type::STRING) };
    let of = |name: &str, from: &str| FunctionProto {
        attribute_proto: vec![AttributeProto { name: from.to_owned(), ..small() }],
        ..leaky(&[refers(name, attribute_type::STRING, from)])
    };
    let unused = FunctionProto {
        attribute_proto: vec![AttributeProto { name: long.clone(), ..small() }],
        ..leaky(&[])
    };
    for leaf in [wide, read, named, default, of(&long, "s"), of("alpha", &long), unused] {
        let functions = vec![twice("F0", "F1"), twice("F1", "Leaky"), leaf];
        let text = said(soon(&model(vec![call("F0", &["x"], &["y"], &[])], functions)));
        assert!(text.contains("more than 67108864 bytes"), "{text}");
    }
    // A function that nothing calls costs nothing.
    let dead = function("Dead", &["a"], &["b"], vec![call("Dead", &["a"], &["b"], &[])]);
    soon(&model(vec![node("Relu", &["x"], &["y"])], vec![dead])).unwrap();
}

/// Messages that would swell in memory are counted in functions as well.
#[test]
fn functions_are_counted_before_they_are_read() {
    let message = |tag: &[u8], inner: &[u8]| {
        let mut out = tag.to_vec();
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        [out, inner.to_vec()].concat()
    };
    let empties = |tag: u8| [tag, 0].repeat(3 << 20);
    // Field 25, and in it inputs, nodes, imported versions, attributes; attributes of a node.
    for inner in [
        empties(0x22),
        empties(0x3a),
        empties(0x4a),
        empties(0x5a),
        message(&[0x3a], &empties(0x2a)),
        message(&[0x5a], &message(&[0x2a], &[0x08, 1].repeat(3 << 20))),
    ] {
        let text = said(parse(&message(&[0xca, 1], &inner), None));
        assert!(text.contains("too many parts"), "{text}");
    }
    let text = said(parse(&[0xca, 1, 0].repeat(3 << 20), None));
    assert!(text.contains("too many parts"), "{text}");
}

/// Weights in functions count once for each call.
#[test]
fn functions_may_have_weights() {
    let values = vec![0; 40 << 20];
    let weights = || {
        let tensor = TensorProto {
            dims: vec![10 << 20],
            data_type: 1,
            raw_data: values.clone(),
            ..Default::default()
        };
        let mut constant = node("Constant", &[], &["c"]);
        constant.attribute =
            vec![AttributeProto { t: Some(tensor), ..attribute("value", attribute_type::TENSOR) }];
        function("Weighty", &["a"], &["b"], vec![constant, node("Relu", &["a"], &["b"])])
    };
    let calls = |from: &str, to: &str| call("Weighty", &[from], &[to], &[]);
    soon(&model(vec![calls("x", "y")], vec![weights()])).unwrap();
    let text = said(soon(&model(vec![calls("x", "t"), calls("t", "y")], vec![weights()])));
    assert!(
        text.contains("call of Weighty") && text.contains("bytes") && text.contains("once for each"),
        "{text}"
    );
    // Numbers that are a byte each in a file and eight in memory.
    let name = |i: usize| format!("t{i}");
    let leaks = (0..18).map(|i| call("Leaky", &[&name(i)], &[&name(i + 1)], &[]));
    let mut nodes = vec![node("Relu", &["x"], &["t0"])];
    nodes.extend(leaks);
    nodes.push(node("Relu", &["t18"], &["y"]));
    let mut long = leaky(&[]);
    long.node[0].attribute.push(super::ints("list", &vec![1; 1 << 19]));
    let text = said(soon(&model(nodes, vec![long])));
    assert!(text.contains("bytes"), "{text}");
}

/// Runtimes have operators of these domains, and which of both a call means differs.
#[test]
fn functions_do_not_take_the_place_of_operators() {
    for (domain, taken) in [
        ("", false),
        ("ai.onnx", false),
        ("ai.onnx.ml", false),
        ("com.microsoft", false),
        ("com.microsoft.nchwc", false),
        ("ai.onnx.preview.training", false),
        ("org.pytorch.aten", false),
        // As PyTorch's exporters and others name them.
        ("pkg.onnxscript.torch_lib", true),
        ("pkg.onnxscript.torch_lib.common", true),
        ("pkg.torch.2.5.0+cpu", true),
        ("aten", true),
        ("this", true),
        ("com.microsoftish", true),
    ] {
        let of = || FunctionProto {
            domain: domain.to_owned(),
            ..function("Relu", &["a"], &["b"], vec![node("Neg", &["a"], &["b"])])
        };
        let calls = || vec![NodeProto { domain: domain.to_owned(), ..call("Relu", &["x"], &["y"], &[]) }];
        if taken {
            close(&answer(calls(), vec![of()], &[1.0, -2.0]), &[-1.0, 2.0], domain);
            continue;
        }
        let text = said(soon(&model(calls(), vec![of()])));
        assert!(text.contains("call of Relu") && text.contains("domain"), "{text}");
        // Where nothing calls it, it is not there.
        let nodes = vec![NodeProto { domain: "own".to_owned(), ..calls().remove(0) }];
        let own = function(
            "Relu",
            &["a"],
            &["b"],
            vec![NodeProto { domain: "own".to_owned(), ..node("Abs", &["a"], &["b"]) }],
        );
        let abs = function("Abs", &["a"], &["b"], vec![node("Abs", &["a"], &["b"])]);
        close(&answer(nodes, vec![of(), own, abs], &[1.0, -2.0]), &[1.0, 2.0], domain);
    }
}

#[test]
fn versions_of_functions_count_where_they_are_called() {
    let of = |version: i64| FunctionProto {
        opset_import: vec![import("", version)],
        ..function("Old", &["a"], &["b"], vec![node("Relu", &["a"], &["b"])])
    };
    for version in [0, 6, 99] {
        soon(&model(vec![node("Relu", &["x"], &["y"])], vec![of(version)])).unwrap();
        let text = said(soon(&model(vec![call("Old", &["x"], &["y"], &[])], vec![of(version)])));
        assert!(text.contains("call of Old (Old)") && text.contains("version"), "{text}");
    }
}
