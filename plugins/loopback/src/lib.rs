//! (being built)
use sandwire_plugin::bindings;
use bindings::imports::sandwire::cni::{links, types::{Request, Failure}, container_netns};
struct P;
impl bindings::attach::exports::sandwire::cni::attach::Guest for P {
    fn add(req: Request) -> Result<String, Failure> {
        let ns = container_netns::get().ok_or(Failure{code:8,msg:"no netns".into(),details:String::new()})?;
        let f = |e| match e { _ => Failure{code:999,msg:"failed".into(),details:String::new()} };
        let l = ns.link("lo").map_err(f)?;
        links::change(&l, &links::Changes{up:Some(true),mac:None,mtu:None,txqlen:None,promisc:None,allmulti:None,extra:vec![]}).map_err(f)?;
        if let Some(p) = req.prev_result { return Ok(p); }
        Ok(format!(r#"{{"cniVersion":"1.1.0","interfaces":[{{"name":"lo","mac":"00:00:00:00:00:00","sandbox":{:?}}}],"ips":[{{"address":"127.0.0.1/8","interface":0}}]}}"#, req.sandbox))
    }
    fn del(_: Request) -> Result<(), Failure> { Ok(()) }
}
impl bindings::check::exports::sandwire::cni::check::Guest for P {
    fn check(_: Request) -> Result<(), Failure> { Ok(()) }
}
sandwire_plugin::bindings::attach::export_attach!(P);
sandwire_plugin::bindings::check::export_check!(P);
