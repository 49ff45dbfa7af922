//! Facts about following one kind, each a conversation: what was asked, what was answered, what was told.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::source::kube::item::{Content, Marks, NodeFacts};

const LONG: Duration = Duration::from_secs(40);
const AT_ONCE: Duration = Duration::ZERO;

#[test]
fn a_streaming_list_is_told_when_it_is_complete_and_followed_from_there() {
    let mut follower = Follower::new(Resource::Services);
    assert_eq!(follower.next_request(), Request::WatchAll);
    assert_eq!(told(&mut follower, [Answer::Opened, applied("a", 1), applied("b", 2), deleted("a", 3)]), "");
    assert_eq!(told(&mut follower, [Answer::AllTold("3".into())]), "+b listed");
    assert_eq!(told(&mut follower, [applied("c", 4), deleted("b", 5), deleted("never", 6)]), "+c -b");
    assert_eq!(told(&mut follower, [Answer::Bookmark("9".into()), Answer::Ended(LONG)]), "");
    assert_eq!(follower.next_request(), Request::Version);
    assert_eq!(told(&mut follower, [Answer::Version("9".into())]), "");
    assert_eq!(follower.next_request(), Request::Watch("9".into()));
}

#[test]
fn a_relist_keeps_the_old_contents_until_it_is_complete_and_then_prunes() {
    let mut follower = following(&["a", "b"], "5");
    assert_eq!(told(&mut follower, [Answer::Failed(Failure::Expired, LONG), Answer::Opened, applied("b", 9)]), "");
    assert_eq!(told(&mut follower, [failed("cut"), Answer::Opened, applied("c", 9)]), "!failing over");
    assert_eq!(told(&mut follower, [Answer::AllTold("9".into())]), "+c -a -b listed");
}

#[test]
fn servers_without_streaming_lists_are_asked_for_pages() {
    for answers in [
        vec![Answer::Failed(Failure::NotUnderstood("sendInitialEvents is forbidden".into()), AT_ONCE)],
        vec![Answer::Opened, applied("a", 1), Answer::Failed(Failure::Silent, LONG)],
        vec![Answer::Opened, applied("a", 1), Answer::Ended(LONG)],
    ] {
        let mut follower = Follower::new(Resource::Services);
        assert_eq!(told(&mut follower, answers), "");
        assert_eq!(follower.next_request(), Request::List(None));
        assert_eq!(told(&mut follower, [page(&["a"], Some("more"))]), "");
        assert_eq!(follower.next_request(), Request::List(Some("more".into())));
        assert_eq!(told(&mut follower, [page(&["b"], None)]), "+a +b listed");
        assert_eq!(follower.next_request(), Request::Watch("9".into()));
    }
}

#[test]
fn an_expired_page_begins_the_list_anew_and_forgets_the_pages_before() {
    let mut follower = paging();
    told(&mut follower, [page(&["a"], Some("more")), Answer::Failed(Failure::Expired, AT_ONCE)]);
    assert_eq!(follower.next_request(), Request::List(None));
    assert_eq!(told(&mut follower, [page(&["b"], None)]), "+b listed");
}

#[test]
fn an_outage_takes_nothing_back_and_the_watch_goes_on_where_it_was() {
    let mut follower = following(&["a"], "5");
    assert_eq!(told(&mut follower, [applied("b", 6), failed("reset"), failed("refused")]), "+b !failing");
    assert_eq!(told(&mut follower, (0..100).map(|_| failed("refused"))), "", "each obstacle is told once");
    assert_eq!(told(&mut follower, [Answer::Version("6".into())]), "");
    assert_eq!(follower.next_request(), Request::Watch("6".into()));
    assert_eq!(told(&mut follower, [Answer::Opened, deleted("a", 7)]), "over -a");
}

#[test]
fn one_reset_connection_is_no_trouble() {
    let mut follower = following(&["a"], "5");
    for _ in 0..3 {
        let reset = Answer::Failed(Failure::Other("reset".into()), LONG);
        assert_eq!(told(&mut follower, [reset, Answer::Version("5".into()), Answer::Opened]), "");
    }
}

#[test]
fn an_object_that_is_not_ours_is_not_told_and_one_that_was_is_taken_back() {
    let mut follower = Follower::new(Resource::Services);
    let foreign = |name: &str, version| Answer::Applied(Item { content: None, ..item(name, version) });
    assert_eq!(told(&mut follower, [foreign("a", 1), applied("b", 2), Answer::AllTold("2".into())]), "+b listed");
    assert_eq!(told(&mut follower, [foreign("b", 3), foreign("a", 4), applied("a", 5)]), "-b +a");
}

#[test]
fn a_server_whose_version_went_back_is_read_again() {
    let mut follower = following(&["a", "b"], "500");
    told(&mut follower, [Answer::Ended(LONG)]);
    assert_eq!(told(&mut follower, [Answer::Version("300".into())]), "back");
    assert_eq!(follower.next_request(), Request::WatchAll);
    assert_eq!(told(&mut follower, [Answer::Opened, applied("a", 200), Answer::AllTold("300".into())]), "+a -b listed");

    told(&mut follower, [Answer::Ended(LONG)]);
    assert_eq!(told(&mut follower, [Answer::Version("300".into())]), "", "the same version is no step back");
    told(&mut follower, [Answer::Ended(LONG), Answer::Version("400".into()), Answer::Ended(LONG)]);
    assert_eq!(told(&mut follower, [Answer::Version("399".into())]), "back", "the check's own answers count too");
}

#[test]
fn everything_is_listed_again_after_about_an_hour() {
    let mut follower = following(&["a"], "5");
    for _ in 1..WATCHES_PER_LIST {
        told(&mut follower, [Answer::Ended(LONG)]);
        assert_eq!(follower.next_request(), Request::Version);
        told(&mut follower, [Answer::Version("5".into()), Answer::Opened]);
    }
    told(&mut follower, [Answer::Ended(LONG)]);
    assert_eq!(follower.next_request(), Request::WatchAll);
    assert_eq!(told(&mut follower, [Answer::AllTold("5".into()), Answer::Ended(LONG)]), "-a listed");
    assert_eq!(follower.next_request(), Request::Version);
}

#[test]
fn versions_that_are_no_numbers_are_not_compared() {
    let mut follower = following(&["a"], "x500");
    assert_eq!(told(&mut follower, [Answer::Ended(LONG), Answer::Version("x300".into())]), "");
    assert_eq!(follower.next_request(), Request::Watch("x500".into()));
}

#[test]
fn what_rbac_lacks_is_named_once_until_it_is_allowed() {
    let denied = |why: &str| Answer::Failed(Failure::Denied(why.into()), AT_ONCE);
    let mut follower = Follower::new(Resource::EndpointSlices);
    let news = follower.take(denied("forbidden"));
    let expected = "the API server does not allow it; the agent's ClusterRole needs the verb watch on endpointslices \
                    (apiGroup \"discovery.k8s.io\"): forbidden";
    assert_eq!(news, [News::Trouble(Obstacle::Denied(Verb::Watch), expected.into())]);
    assert_eq!(told(&mut follower, [denied("forbidden"), denied("forbidden")]), "");
    assert_eq!(told(&mut follower, [Answer::Opened, Answer::AllTold("1".into())]), "over listed");

    told(&mut follower, [Answer::Ended(LONG)]);
    assert_eq!(told(&mut follower, [denied("forbidden")]), "!Denied(List)");
    assert_eq!(follower.next_request(), Request::Watch("1".into()), "the check is left out, the watch goes on");
    assert_eq!(told(&mut follower, [Answer::Opened, applied("a", 2), Answer::Ended(LONG), denied("forbidden")]), "+a");
}

#[test]
fn pauses_grow_from_a_tenth_of_a_second_to_three_and_begin_anew_after_success() {
    let mut follower = following(&[], "1");
    assert_eq!(follower.pause(1.0), Duration::ZERO);
    let mut pauses_ms = Vec::new();
    for _ in 0..7 {
        told(&mut follower, [failed("refused")]);
        pauses_ms.push((follower.pause(0.0).as_millis(), follower.pause(1.0).as_millis()));
    }
    let expected = [(50, 100), (100, 200), (200, 400), (400, 800), (800, 1600), (1500, 3000), (1500, 3000)];
    assert_eq!(pauses_ms, expected);
    told(&mut follower, (0..100).map(|_| failed("refused")));
    assert_eq!(follower.pause(1.0), Duration::from_secs(3));

    told(&mut follower, [Answer::Version("1".into()), Answer::Opened]);
    assert_eq!(follower.pause(1.0), Duration::ZERO);
    told(&mut follower, [Answer::Failed(Failure::Other("reset".into()), LONG)]);
    assert_eq!(follower.pause(1.0), Duration::from_millis(100));
}

#[test]
fn a_server_that_ends_every_watch_at_once_is_not_asked_without_pause() {
    let mut follower = following(&["a"], "5");
    for expected_ms in [100, 200, 400] {
        told(&mut follower, [Answer::Opened, Answer::Ended(AT_ONCE)]);
        assert_eq!(follower.pause(1.0).as_millis(), expected_ms);
        told(&mut follower, [Answer::Version("5".into())]);
    }
    for expected_ms in [800, 1600] {
        told(&mut follower, [Answer::Opened, Answer::Failed(Failure::Expired, AT_ONCE)]);
        assert_eq!(follower.pause(1.0).as_millis(), expected_ms);
        told(&mut follower, [Answer::Opened, Answer::AllTold("5".into())]);
    }
}

#[test]
fn pages_of_a_list_follow_each_other_without_pause() {
    let mut follower = paging();
    told(&mut follower, [failed("refused"), page(&["a"], Some("more"))]);
    assert_eq!(follower.pause(1.0), Duration::ZERO);
}

proptest! {
    /// Whatever the server's history and its faults: when it works again, what was told is what it holds.
    #[test]
    fn after_any_faults_what_was_told_is_what_the_server_holds(steps in vec(step(), 0..200)) {
        let mut follower = Follower::new(Resource::Services);
        let (mut server, mut told) = (Server::default(), BTreeMap::new());
        for step in steps {
            server.take(&step);
            hear(&mut told, server.talk(&mut follower, step.as_fault()));
        }
        for _ in 0..4 {
            hear(&mut told, server.talk(&mut follower, None));
        }
        prop_assert_eq!(told, server.objects);
    }
}

/// What may happen between two requests.
#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Remove(u8),
    Compact,
    /// The database is restored: the version goes back, and objects are others.
    Restore,
    /// The next request fails after this many events or pages.
    Fault(Failure, usize),
    /// The next watch ends politely after this many events.
    End(usize),
}

impl Step {
    fn as_fault(&self) -> Option<(Answer, usize)> {
        match self {
            Step::Fault(failure, after) => Some((Answer::Failed(failure.clone(), AT_ONCE), *after)),
            Step::End(after) => Some((Answer::Ended(AT_ONCE), *after)),
            _ => None,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let failure = prop_oneof![
        Just(Failure::Expired),
        Just(Failure::NotUnderstood("?".into())),
        Just(Failure::Denied("no".into())),
        Just(Failure::Silent),
        Just(Failure::Other("reset".into())),
    ];
    prop_oneof![
        8 => (0..6u8).prop_map(Step::Put),
        6 => (0..6u8).prop_map(Step::Remove),
        1 => Just(Step::Compact),
        1 => Just(Step::Restore),
        4 => (failure, 0..4usize).prop_map(|(failure, after)| Step::Fault(failure, after)),
        2 => (0..4usize).prop_map(Step::End),
    ]
}

/// Where versions begin.
const YOUNG: u64 = 1_000_000;
/// How far a restored database is behind: further than it comes in a test. Had it come as far before anyone asked, nothing
/// would tell it from what it was.
const LOST: u64 = 1_000;

/// A server with a log of changes; each talk is one request and all that is answered to it.
struct Server {
    version: u64,
    objects: BTreeMap<String, String>,
    log: Vec<(u64, Answer)>,
    floor: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self { version: YOUNG, objects: BTreeMap::new(), log: Vec::new(), floor: YOUNG }
    }
}

impl Server {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Put(name) => {
                self.version += 1;
                self.objects.insert(name.to_string(), self.version.to_string());
                self.log.push((self.version, applied(&name.to_string(), self.version)));
            }
            Step::Remove(name) => {
                if self.objects.remove(&name.to_string()).is_some() {
                    self.version += 1;
                    self.log.push((self.version, deleted(&name.to_string(), self.version)));
                }
            }
            Step::Compact => self.floor = self.version,
            Step::Restore => {
                let version = self.version - LOST;
                *self = Self { version, floor: version, ..Self::default() };
                self.objects.insert("restored".into(), self.version.to_string());
            }
            Step::Fault(..) | Step::End(_) => {}
        }
    }

    fn talk(&self, follower: &mut Follower, fault: Option<(Answer, usize)>) -> Vec<News> {
        let mut answers = self.answers(&follower.next_request());
        let (end, after) = fault.unwrap_or((Answer::Ended(LONG), usize::MAX));
        answers.truncate(after);
        let is_watch = follower.next_request().verb() == Verb::Watch;
        let is_refusal = matches!(answers.last(), Some(Answer::Failed(..)));
        if matches!(end, Answer::Failed(..)) || (is_watch && !is_refusal) {
            answers.push(end);
        }
        answers.into_iter().flat_map(|answer| follower.take(answer)).collect()
    }

    fn answers(&self, request: &Request) -> Vec<Answer> {
        let all = || self.objects.iter().map(|(name, version)| item(name, version.parse().unwrap()));
        let version = self.version.to_string();
        match request {
            Request::WatchAll => {
                let objects = all().map(Answer::Applied);
                [Answer::Opened].into_iter().chain(objects).chain([Answer::AllTold(version)]).collect()
            }
            Request::List(_) => vec![Answer::Page(all().collect(), version, None)],
            Request::Version => vec![Answer::Version(version)],
            Request::Watch(since) => {
                let since: u64 = since.parse().unwrap();
                if since < self.floor {
                    return vec![Answer::Opened, Answer::Failed(Failure::Expired, AT_ONCE)];
                }
                let news = self.log.iter().filter(|(version, _)| *version > since).map(|(_, answer)| answer.clone());
                [Answer::Opened].into_iter().chain(news).collect()
            }
        }
    }
}

fn hear(told: &mut BTreeMap<String, String>, news: Vec<News>) {
    for news in news {
        match news {
            News::Put(item) => drop(told.insert(item.name.name, item.version)),
            News::Gone(name) => drop(told.remove(&name.name)),
            _ => {}
        }
    }
}

/// A follower that was told of these objects and watches since this version.
fn following(names: &[&str], version: &str) -> Follower {
    let mut follower = Follower::new(Resource::Services);
    told(&mut follower, names.iter().map(|name| applied(name, 1)));
    told(&mut follower, [Answer::AllTold(version.into())]);
    follower
}

/// A follower whose server does not know streaming lists.
fn paging() -> Follower {
    let mut follower = Follower::new(Resource::Services);
    told(&mut follower, [Answer::Failed(Failure::NotUnderstood("?".into()), AT_ONCE)]);
    follower
}

/// The news of these answers as words.
fn told(follower: &mut Follower, answers: impl IntoIterator<Item = Answer>) -> String {
    let news = answers.into_iter().flat_map(|answer| follower.take(answer));
    let words: Vec<String> = news.map(word).collect();
    words.join(" ")
}

fn word(news: News) -> String {
    match news {
        News::Put(item) => format!("+{}", item.name.name),
        News::Gone(name) => format!("-{}", name.name),
        News::Listed => "listed".into(),
        News::Trouble(Obstacle::Failing, _) => "!failing".into(),
        News::Trouble(obstacle, _) => format!("!{obstacle:?}"),
        News::Over(_) => "over".into(),
        News::WentBack { .. } => "back".into(),
    }
}

fn applied(name: &str, version: u64) -> Answer {
    Answer::Applied(item(name, version))
}

fn deleted(name: &str, version: u64) -> Answer {
    Answer::Deleted(item(name, version))
}

fn page(names: &[&str], next: Option<&str>) -> Answer {
    Answer::Page(names.iter().map(|name| item(name, 1)).collect(), "9".into(), next.map(String::from))
}

fn failed(why: &str) -> Answer {
    Answer::Failed(Failure::Other(why.into()), AT_ONCE)
}

fn item(name: &str, version: u64) -> Item {
    let name = ObjectName { namespace: String::new(), name: name.into() };
    let content = Some(Content::Node(NodeFacts::default()));
    Item { name, version: version.to_string(), content, errors: Vec::new(), marks: Marks::default() }
}
