//! Which servers are fit.

use super::*;

#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_server_is_judged_by_its_settings() {
    let server = RedisServer::start(&["--maxmemory", "100mb"]).await;
    let fit = server.store().await.settings().await.unwrap();
    assert_eq!(fit, hot_store::Settings::default());

    let other = RedisOptions { shards: model::ShardCount::new(32).unwrap(), ..server.options() };
    let refused = RedisStore::connect(other).await.unwrap().settings().await.unwrap().refused;
    assert!(refused.len() == 1 && refused[0].contains("64 shards"), "{refused:?}");

    let mut raw = server.connection().await.unwrap();
    for (setting, value) in [("maxmemory-policy", "allkeys-lru"), ("appendfsync", "everysec")] {
        let () = redis::cmd("CONFIG").arg("SET").arg(setting).arg(value).query_async(&mut raw).await.unwrap();
    }
    let unfit = server.store().await.settings().await.unwrap();
    assert!(unfit.refused.len() == 1 && unfit.refused[0].contains("allkeys-lru"), "{unfit:?}");
    assert!(unfit.warned.len() == 1 && unfit.warned[0].contains("everysec"), "{unfit:?}");

    // Where CONFIG is forbidden, INFO tells the rest.
    let rules = ["SETUSER", "app", "on", ">sesame", "~*", "+@all", "-config"];
    let () = redis::cmd("ACL").arg(&rules[..]).query_async(&mut raw).await.unwrap();
    let (username, password) = (Some("app".to_owned()), Some("sesame".to_owned()));
    let options = RedisOptions { username, password, ..server.options() };
    let store = RedisStore::connect(options.clone()).await.unwrap();
    let unfit = store.settings().await.unwrap();
    assert!(unfit.refused.len() == 1 && unfit.warned[0].contains("CONFIG GET is forbidden"), "{unfit:?}");

    let wrong = RedisOptions { password: Some("wrong".to_owned()), ..options };
    let refused = RedisStore::connect(wrong).await.map(drop);
    assert!(matches!(refused, Err(HotStoreError::Unavailable(_))), "{refused:?}");
}

#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_server_with_a_replica_is_refused() {
    let primary = RedisServer::start(&["--maxmemory", "100mb"]).await;
    let address = primary.options().url;
    let port = address.rsplit(':').next().unwrap();
    let replica = RedisServer::start(&["--maxmemory", "100mb", "--replicaof", &format!("127.0.0.1 {port}")]).await;
    let store = primary.store().await;
    eventually("the replica connects", async || !store.settings().await.unwrap().refused.is_empty()).await;
    assert!(store.settings().await.unwrap().refused[0].contains("a replica is connected"));
    let refused = replica.store().await.settings().await;
    // It has not got the key that holds the number of shards until it has synchronised, and can't be given it.
    match refused {
        Ok(settings) => assert!(settings.refused[0].contains("is a replica"), "{settings:?}"),
        Err(error) => assert!(matches!(error, HotStoreError::Unavailable(_)), "{error:?}"),
    }
}
