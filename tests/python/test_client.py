"""A client that is not ours: stubs made by grpcio-tools from proto/, driven against a running Shock Absorber.

Needs SHOCK_ABSORBER_TEST_ENDPOINT (host:port) with the table `payments` of cli/sql/payments.sql; without it, it starts
`shock-absorber dev` (SHOCK_ABSORBER_BIN, or target/debug/shock-absorber) by itself.
"""

import importlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
# Nobody but the database knows what it refuses.
STRICT = "CREATE TABLE strict (id INTEGER NOT NULL PRIMARY KEY, amount INTEGER NOT NULL CHECK (amount > 0));"


def generate(into):
    """Makes the stubs, as any user of the protos would."""
    files = sorted(str(f.relative_to(PROTO)) for f in (PROTO / "shockabsorber/v1").glob("*.proto"))
    well_known = str(pathlib.Path(protoc.__file__).parent / "_proto")
    arguments = ["protoc", f"-I{PROTO}", f"-I{well_known}", f"--python_out={into}", f"--grpc_python_out={into}", *files]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed")
    sys.path.insert(0, str(into))
    services = [f"{name}_service_pb2{kind}" for name in ("record", "table", "operator", "watch") for kind in ("", "_grpc")]
    names = ["value_pb2", *services]
    return [importlib.import_module(f"shockabsorber.v1.{name}") for name in names]


class CallsMade(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Notes the name of every call, `/package.Service/Method`."""

    def __init__(self):
        self.methods = set()

    def note(self, continuation, details, request):
        self.methods.add(details.method)
        return continuation(details, request)

    intercept_unary_unary = note
    intercept_unary_stream = note
    intercept_stream_unary = note
    intercept_stream_stream = note


def methods_of(channel, package):
    """All calls that the server says it has in that package."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    services = [name for name in database.get_services() if name.startswith(f"{package}.")]
    found = [pool.FindServiceByName(name) for name in services]
    return {f"/{service.full_name}/{method.name}" for service in found for method in service.methods}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ClientTest(unittest.TestCase):
    """The same calls as the Rust client makes."""

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="shock-absorber-python-")
        stubs = pathlib.Path(cls.directory.name, "stubs")
        stubs.mkdir()
        cls.values, *services = generate(stubs)
        cls.records, records_grpc, cls.tables, tables_grpc, cls.operators, operators_grpc, cls.watches, watches_grpc = services
        cls.server = None
        endpoint = os.environ.get("SHOCK_ABSORBER_TEST_ENDPOINT")
        if not endpoint:
            endpoint = f"127.0.0.1:{free_port()}"
            binary = os.environ.get("SHOCK_ABSORBER_BIN", str(ROOT / "target/debug/shock-absorber"))
            settings = (f"ingest.listen={endpoint}", "ingest.admin_listen=127.0.0.1:0", "drain.admin_listen=127.0.0.1:0")
            schema = pathlib.Path(cls.directory.name, "schema.sql")
            schema.write_text((ROOT / "cli/sql/payments.sql").read_text() + STRICT)
            arguments = [binary, "dev", "--data-dir", str(pathlib.Path(cls.directory.name, "data")), "--init-sql", str(schema)]
            for setting in settings:
                arguments += ["--set", setting]
            cls.server = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        channel = grpc.insecure_channel(endpoint)
        grpc.channel_ready_future(channel).result(timeout=30)
        cls.calls = CallsMade()
        cls.channel = grpc.intercept_channel(channel, cls.calls)
        cls.record = records_grpc.RecordServiceStub(cls.channel)
        cls.table_service = tables_grpc.TableServiceStub(cls.channel)
        cls.operator = operators_grpc.OperatorServiceStub(cls.channel)
        cls.watcher = watches_grpc.WatchServiceStub(cls.channel)
        cls.wait_until_serving()
        cls.payments = cls.values.TableRef(table="payments")
        cls.table_service.EnableTable(cls.tables.EnableTableRequest(table=cls.payments), timeout=30)

    @classmethod
    def wait_until_serving(cls):
        health = health_pb2_grpc.HealthStub(cls.channel)
        deadline = time.monotonic() + 30
        while health.Check(health_pb2.HealthCheckRequest()).status != health_pb2.HealthCheckResponse.SERVING:
            if time.monotonic() > deadline:
                raise TimeoutError("the server does not report SERVING")
            time.sleep(0.05)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        if cls.server:
            cls.server.terminate()
            cls.server.wait(timeout=30)
        cls.directory.cleanup()

    def value(self, **kind):
        return self.values.Value(**kind)

    def payment(self, **changes):
        text = lambda s: self.value(string_value=s)
        columns = {
            "id": text(f"py-{uuid.uuid4().hex[:12]}"),
            "amount": self.value(decimal_value="1250.50"),
            "currency": text("INR"),
            "payer_upi": text("a@upi"),
            "payee_upi": text("b@upi"),
            "tenant": text("north"),
            "customer": text("c-1"),
            "leg": text("DEBIT"),
            "action": text("PAY"),
            "meta": self.value(json_value='{"n": 12345678901234567890}'),
            "error_code": self.value(null_value=0),
            "created_at": self.value(datetime_value="2026-01-01T10:00:00.000001"),
            "updated_at": self.value(datetime_value="2026-01-01T10:00:00"),
        }
        columns.update(changes)
        return self.values.Row(columns=columns)

    def key(self, row):
        return self.values.Row(columns={"id": row.columns["id"]})

    def get(self, row, **more):
        return self.record.GetRecord(self.records.GetRecordRequest(table=self.payments, key=self.key(row), **more))

    def refused(self, code, reason, call, request):
        with self.assertRaises(grpc.RpcError) as caught:
            call(request)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        details = self.details(rpc_status.from_call(caught.exception))
        info = [d for d in details if isinstance(d, error_details_pb2.ErrorInfo)]
        self.assertEqual([(i.domain, i.reason) for i in info], [("shockabsorber", reason)])
        return details

    def details(self, status):
        kinds = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
        found = []
        for packed in status.details:
            for kind in kinds:
                if packed.Is(kind.DESCRIPTOR):
                    message = kind()
                    packed.Unpack(message)
                    found.append(message)
        return found

    def test_a_record_lives_and_dies(self):
        row = self.payment()
        created = self.record.CreateRecord(self.records.CreateRecordRequest(table=self.payments, row=row))
        self.assertEqual(created.result.reached, self.records.ACK_LEVEL_QUEUED)
        found = self.get(row)
        self.assertEqual(found.etag, created.result.etag)
        self.assertEqual(found.row.columns["amount"].decimal_value, "1250.50")
        self.assertEqual(found.row.columns["status"].string_value, "INITIATED")
        self.assertEqual(found.row.columns["error_code"].WhichOneof("kind"), "null_value")
        changes = self.values.Row(columns={"status": self.value(string_value="SUCCESS")})
        request = self.records.UpdateRecordRequest(table=self.payments, key=self.key(row), changes=changes)
        self.record.UpdateRecord(request)
        selected = self.get(row, columns=["status", "amount"]).row
        self.assertEqual(sorted(selected.columns), ["amount", "status"])
        self.assertEqual(selected.columns["status"].string_value, "SUCCESS")
        self.record.DeleteRecord(self.records.DeleteRecordRequest(table=self.payments, key=self.key(row)))
        request = self.records.GetRecordRequest(table=self.payments, key=self.key(row))
        self.refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND", self.record.GetRecord, request)

    def test_records_are_found_by_a_declared_field(self):
        rows = [self.payment(), self.payment()]
        for row in rows:
            self.record.PutRecord(self.records.PutRecordRequest(table=self.payments, row=row))
        find = self.records.FindRecordsRequest(table=self.payments, field="id", value=rows[0].columns["id"])
        self.refused(grpc.StatusCode.FAILED_PRECONDITION, "FIELD_NOT_INDEXED", self.record.FindRecords, find)
        fields = self.tables.IndexedFields(columns=["id"])
        enable = self.tables.EnableTableRequest(table=self.payments, indexed_fields=fields)
        self.assertEqual(list(self.table_service.EnableTable(enable).table.indexed_fields), ["id"])
        answer = self.record.FindRecords(find)
        self.assertEqual([found.row for found in answer.records], [self.get(rows[0]).row])
        self.assertEqual([found.etag for found in answer.records], [self.get(rows[0]).etag])
        self.assertEqual(answer.next_page_token, "")
        find.page_token = "00"
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", self.record.FindRecords, find)

    def test_conditions(self):
        row = self.payment()
        create = self.records.CreateRecordRequest(table=self.payments, row=row)
        etag = self.record.CreateRecord(create).result.etag
        self.refused(grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS", self.record.CreateRecord, create)
        put = self.records.PutRecordRequest(table=self.payments, row=row, precondition=self.records.Precondition(etag=etag))
        self.record.PutRecord(put)
        self.refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH", self.record.PutRecord, put)
        missing = self.payment()
        changes = self.values.Row(columns={"status": self.value(string_value="SUCCESS")})
        update = self.records.UpdateRecordRequest(table=self.payments, key=self.key(missing), changes=changes)
        self.refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND", self.record.UpdateRecord, update)

    def test_bad_input_names_the_field_and_stores_nothing(self):
        row = self.payment(amount=self.value(double_value=1.5))
        request = self.records.PutRecordRequest(table=self.payments, row=row)
        details = self.refused(grpc.StatusCode.INVALID_ARGUMENT, "WRONG_TYPE", self.record.PutRecord, request)
        fields = [v.field for d in details if isinstance(d, error_details_pb2.BadRequest) for v in d.field_violations]
        self.assertEqual(fields, ['row.columns["amount"]'])
        request = self.records.GetRecordRequest(table=self.payments, key=self.key(row))
        self.refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND", self.record.GetRecord, request)

    def test_a_batch_has_one_outcome_per_item(self):
        good, bad = self.payment(), self.payment(colour=self.value(string_value="red"))
        items = [
            self.records.WriteItem(create=self.records.CreateRecordRequest(table=self.payments, row=good)),
            self.records.WriteItem(put=self.records.PutRecordRequest(table=self.payments, row=bad)),
            self.records.WriteItem(delete=self.records.DeleteRecordRequest(table=self.payments, key=self.key(good))),
            self.records.WriteItem(create=self.records.CreateRecordRequest(table=self.payments, row=good)),
        ]
        results = self.record.BatchWrite(self.records.BatchWriteRequest(items=items)).results
        self.assertEqual([r.WhichOneof("outcome") for r in results], ["result", "status", "result", "result"])
        self.assertEqual(results[1].status.code, grpc.StatusCode.INVALID_ARGUMENT.value[0])
        info = [d for d in self.details(results[1].status) if isinstance(d, error_details_pb2.ErrorInfo)]
        self.assertEqual([i.reason for i in info], ["UNKNOWN_COLUMN"])
        self.assertEqual(self.get(good).etag, results[3].result.etag)

    def test_a_stream_has_one_result_per_write_in_their_order(self):
        rows = [self.payment() for _ in range(50)]
        create = lambda row: self.records.WriteItem(
            create=self.records.CreateRecordRequest(table=self.payments, row=row, request_id=row.columns["id"].string_value)
        )
        bad = self.records.WriteItem(put=self.records.PutRecordRequest(table=self.payments, row=self.payment(colour=self.value(string_value="red"))))
        items = [create(row) for row in rows]
        items.insert(7, bad)
        acknowledgement = self.records.Acknowledgement(required=self.records.ACK_LEVEL_QUEUED)

        def messages():
            yield self.records.WriteStreamRequest(acknowledgement=acknowledgement)
            for at in range(0, len(items), 10):
                yield self.records.WriteStreamRequest(items=items[at : at + 10])

        results = [result for answer in self.record.WriteStream(messages()) for result in answer.results]
        self.assertEqual([r.WhichOneof("outcome") == "result" for r in results], [at != 7 for at in range(51)])
        info = [d for d in self.details(results[7].status) if isinstance(d, error_details_pb2.ErrorInfo)]
        self.assertEqual([i.reason for i in info], ["UNKNOWN_COLUMN"])
        again = [result for answer in self.record.WriteStream(messages()) for result in answer.results]
        self.assertEqual([r.result.etag for r in again], [r.result.etag for r in results])
        self.assertEqual(self.get(rows[49]).etag, results[50].result.etag)

    def test_what_a_stream_acknowledged_before_its_deadline_is_there(self):
        row, done = self.payment(), threading.Event()

        def messages():
            item = self.records.WriteItem(put=self.records.PutRecordRequest(table=self.payments, row=row))
            yield self.records.WriteStreamRequest(items=[item])
            done.wait(60)

        answers = self.record.WriteStream(messages(), timeout=5)
        etag = next(answers).results[0].result.etag
        with self.assertRaises(grpc.RpcError) as caught:
            next(answers)
        done.set()
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertEqual(self.get(row).etag, etag)

    def test_many_reads_have_one_outcome_per_item(self):
        there, missing = self.payment(), self.payment()
        etag = self.record.PutRecord(self.records.PutRecordRequest(table=self.payments, row=there)).result.etag
        get = lambda row, **more: self.records.GetRecordRequest(table=self.payments, key=self.key(row), **more)
        items = [get(missing), get(there, columns=["status"]), get(there, columns=["colour"]), get(there)]
        results = self.record.BatchGetRecords(self.records.BatchGetRecordsRequest(items=items)).results
        self.assertEqual([r.WhichOneof("outcome") for r in results], ["status", "record", "status", "record"])
        reasons = [d.reason for at in (0, 2) for d in self.details(results[at].status) if isinstance(d, error_details_pb2.ErrorInfo)]
        self.assertEqual(reasons, ["NOT_FOUND", "UNKNOWN_COLUMN"])
        self.assertEqual(list(results[1].record.row.columns), ["status"])
        self.assertEqual(results[3].record.etag, etag)

    def test_the_database_itself_can_be_asked_and_what_it_has_be_forgotten(self):
        row = self.payment()
        token = self.record.PutRecord(self.records.PutRecordRequest(table=self.payments, row=row)).result.token
        wait = self.records.WaitAppliedRequest(tokens=[token])
        wait.wait.FromSeconds(20)
        self.assertTrue(self.record.WaitApplied(wait).applied)
        found = self.get(row, consistency=self.records.CONSISTENCY_DATABASE)
        self.assertEqual((found.row.columns["amount"].decimal_value, found.etag), ("1250.50", ""))
        keys = [self.key(row), self.key(self.payment())]
        answer = self.record.EvictRecords(self.records.EvictRecordsRequest(table=self.payments, keys=keys))
        expected = [self.records.EVICTION_EVICTED, self.records.EVICTION_NOT_HELD]
        self.assertEqual([result.eviction for result in answer.results], expected)
        self.assertEqual(self.get(row).row.columns["amount"].decimal_value, "1250.50")

    def test_a_write_that_is_sent_again_takes_effect_once(self):
        row, request_id = self.payment(), uuid.uuid4().hex
        create = self.records.CreateRecordRequest(table=self.payments, row=row, request_id=request_id)
        first = self.record.CreateRecord(create).result
        self.assertEqual(self.record.CreateRecord(create).result.etag, first.etag)
        other = self.payment(id=row.columns["id"], amount=self.value(decimal_value="1.00"))
        create = self.records.CreateRecordRequest(table=self.payments, row=other, request_id=request_id)
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED", self.record.CreateRecord, create)
        self.assertEqual(self.get(row).row.columns["amount"].decimal_value, "1250.50")

    def test_a_token_can_be_waited_for(self):
        put = self.records.PutRecordRequest(table=self.payments, row=self.payment())
        token = self.record.PutRecord(put).result.token
        wait = self.records.WaitAppliedRequest(tokens=[token])
        wait.wait.FromSeconds(20)
        self.assertTrue(self.record.WaitApplied(wait).applied)
        nobody_s = self.records.WaitAppliedRequest(tokens=[token, "x"])
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", self.record.WaitApplied, nobody_s)

    def test_dead_letters_are_listed_and_named_one_by_one(self):
        pages = list(self.operator.ListDeadLetters(self.operators.ListDeadLettersRequest(table=self.payments)))
        self.assertEqual([letter for page in pages for letter in page.letters], [])
        nobody = self.operators.DeadLetterName(table=self.payments, id="0-999999")
        get = self.operators.GetDeadLetterRequest(name=nobody)
        self.refused(grpc.StatusCode.NOT_FOUND, "UNKNOWN_DEAD_LETTER", self.operator.GetDeadLetter, get)
        replay = self.operators.ReplayDeadLettersRequest(names=[nobody])
        purge = self.operators.PurgeDeadLettersRequest(names=[nobody])
        for results in (self.operator.ReplayDeadLetters(replay).results, self.operator.PurgeDeadLetters(purge).results):
            details = [self.details(result.status) for result in results]
            self.assertEqual([d.reason for ds in details for d in ds], ["UNKNOWN_DEAD_LETTER"])
        strange = self.operators.PurgeDeadLettersRequest(names=[self.operators.DeadLetterName(table=self.payments, id="x")])
        details = self.refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", self.operator.PurgeDeadLetters, strange)
        fields = [v.field for d in details if isinstance(d, error_details_pb2.BadRequest) for v in d.field_violations]
        self.assertEqual(fields, ["names[0].id"])

    def test_what_the_database_refuses_is_found_replayed_and_purged(self):
        if not self.server:
            self.skipTest("the database of this server has no table that refuses anything")
        strict = self.values.TableRef(table="strict")
        self.table_service.EnableTable(self.tables.EnableTableRequest(table=strict), timeout=30)
        key = self.values.Row(columns={"id": self.value(int64_value=1)})
        row = self.values.Row(columns={"id": self.value(int64_value=1), "amount": self.value(int64_value=-5)})
        self.record.PutRecord(self.records.PutRecordRequest(table=strict, row=row))
        read = self.records.GetRecordRequest(table=strict, key=key)

        first = self.one_dead_letter(strict)
        self.assertEqual(first.cause, self.operators.DEAD_LETTER_CAUSE_PERMANENT)
        shown = self.operator.GetDeadLetter(self.operators.GetDeadLetterRequest(name=first.name))
        self.assertEqual((shown.letter, shown.record.row), (first, row))
        self.assertEqual(self.record.GetRecord(read).row, row)
        replay = self.operators.ReplayDeadLettersRequest(names=[first.name])
        (replayed,) = self.operator.ReplayDeadLetters(replay).results
        self.assertGreater(replayed.replayed_as, first.version)
        (again,) = self.operator.ReplayDeadLetters(replay).results
        self.assertEqual(again.settled, self.operators.DEAD_LETTER_STATE_SUPERSEDED)

        second = self.one_dead_letter(strict)
        self.assertEqual(second.version, replayed.replayed_as)
        purge = self.operators.PurgeDeadLettersRequest(names=[second.name])
        (purged,) = self.operator.PurgeDeadLetters(purge).results
        self.assertEqual(purged.WhichOneof("outcome"), "purged")
        self.refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND", self.record.GetRecord, read)

    def one_dead_letter(self, table):
        """The unresolved letter of a table, once it is there and its record is parked."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            pages = self.operator.ListDeadLetters(self.operators.ListDeadLettersRequest(table=table))
            letters = [letter for page in pages for letter in page.letters]
            if [letter.state for letter in letters] == [self.operators.DEAD_LETTER_STATE_UNRESOLVED]:
                return letters[0]
            time.sleep(0.05)
        raise TimeoutError(f"there is no dead letter, but {letters}")

    def test_tables_are_stopped_and_let_go_on_and_status_tells(self):
        o = self.operators
        held = self.operator.Pause(o.PauseRequest(table=self.payments, reason="look", by="py")).hold
        self.assertEqual((held.kind, held.by, held.table.table), (o.HOLD_KIND_PAUSE, "py", "payments"))
        status = self.operator.GetStatus(o.GetStatusRequest(table=self.payments))
        self.assertEqual([(t.state, t.why) for t in status.tables], [(o.TABLE_STATE_PAUSED, "py: look")])
        self.assertTrue(status.tables[0].HasField("backlog") and status.shards > 0)
        self.assertTrue(self.operator.Resume(o.ResumeRequest(table=self.payments)).was_held)

        self.operator.StartDrainDown(o.StartDrainDownRequest(table=self.payments, reason="look", by="py"))
        try:
            put = self.records.PutRecordRequest(table=self.payments, row=self.payment())
            self.refused(grpc.StatusCode.UNAVAILABLE, "DRAINING_DOWN", self.record.PutRecord, put)
            deadline = time.monotonic() + 30
            while not self.operator.GetDrainDown(o.GetDrainDownRequest(table=self.payments)).ready:
                self.assertLess(time.monotonic(), deadline, "it never got ready")
                time.sleep(0.1)
        finally:
            ended = self.operator.EndDrainDown(o.EndDrainDownRequest(table=self.payments))
        self.assertTrue(ended.was_held)
        self.record.PutRecord(put)

    def test_a_table_is_verified(self):
        put = self.records.PutRecordRequest(table=self.payments, row=self.payment())
        token = self.record.PutRecord(put).result.token
        wait = self.records.WaitAppliedRequest(tokens=[token])
        wait.wait.FromSeconds(20)
        self.assertTrue(self.record.WaitApplied(wait).applied)
        verify = self.operators.VerifyTableRequest(table=self.payments, records_per_second=100_000)
        told = list(self.operator.VerifyTable(verify))
        self.assertEqual([t.complete for t in told], [False] * (len(told) - 1) + [True])
        progress = told[-1].progress
        self.assertEqual(([d for t in told for d in t.differences], progress.differ), ([], 0))
        self.assertGreater(progress.agree, 0)
        never = self.operators.VerifyTableRequest(table=self.values.TableRef(table="nothing"))
        self.refused(grpc.StatusCode.FAILED_PRECONDITION, "TABLE_NOT_ENABLED", lambda it: list(self.operator.VerifyTable(it)), never)

    def test_changes_are_watched_and_a_watch_goes_on_where_it_was(self):
        row = self.payment()
        request = self.watches.WatchRequest(table=self.payments, keys=[self.key(row)], columns=["id", "amount"])
        watch = self.watcher.Watch(request, timeout=60)
        begun = next(watch)
        self.assertTrue(begun.live)
        self.assertEqual(list(begun.changes), [])
        # Live, then read, then apply by version: nothing is missed.
        self.record.PutRecord(self.records.PutRecordRequest(table=self.payments, row=row))
        read = self.record.GetRecord(self.records.GetRecordRequest(table=self.payments, key=self.key(row)))
        told = next(watch)
        (change,) = told.changes
        self.assertEqual((change.operation, change.key), (self.watches.CHANGE_OPERATION_PUT, self.key(row)))
        self.assertEqual((change.version, change.etag), (read.version, read.etag))
        self.assertEqual(sorted(change.row.columns), ["amount", "id"])
        watch.cancel()
        self.record.DeleteRecord(self.records.DeleteRecordRequest(table=self.payments, key=self.key(row)))
        request.resume_token = told.resume_token
        watch = self.watcher.Watch(request, timeout=60)
        changes = []
        while not changes:
            changes.extend(next(watch).changes)
        self.assertEqual([c.operation for c in changes], [self.watches.CHANGE_OPERATION_DELETE])
        self.assertFalse(changes[0].HasField("row"))
        self.assertGreater(changes[0].version, change.version)
        watch.cancel()
        request.resume_token = "x" + told.resume_token
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", lambda it: next(self.watcher.Watch(it)), request)

    def test_tables_and_reflection(self):
        tables = self.table_service.ListTables(self.tables.ListTablesRequest()).tables
        payments = [t for t in tables if t.table.table == "payments"]
        self.assertEqual([(t.enabled, list(t.primary_key)) for t in payments], [(True, ["id"])])
        read = self.table_service.GetTable(self.tables.GetTableRequest(table=self.payments)).table
        self.assertEqual([read], payments)
        services = ProtoReflectionDescriptorDatabase(self.channel).get_services()
        self.assertIn("shockabsorber.v1.RecordService", services)
        self.assertIn("shockabsorber.v1.TableService", services)
        self.assertIn("shockabsorber.v1.OperatorService", services)
        self.assertIn("shockabsorber.v1.WatchService", services)

    def test_a_table_is_given_a_rate_and_taken_it_again(self):
        rate = self.tables.SetTableRateRequest(table=self.payments, rows_per_second=250.0)
        self.assertEqual(self.table_service.SetTableRate(rate).table.rows_per_second, 250.0)
        table = self.table_service.SetTableRate(self.tables.SetTableRateRequest(table=self.payments)).table
        self.assertIsNone(table.WhichOneof("set_rate"))
        never = self.tables.SetTableRateRequest(table=self.payments, rows_per_second=-1.0)
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", self.table_service.SetTableRate, never)

    def test_a_disabled_table_takes_no_writes(self):
        put = self.records.PutRecordRequest(table=self.payments, row=self.payment())
        disabled = self.table_service.DisableTable(self.tables.DisableTableRequest(table=self.payments)).table
        try:
            self.assertFalse(disabled.enabled)
            self.refused(grpc.StatusCode.FAILED_PRECONDITION, "TABLE_NOT_ENABLED", self.record.PutRecord, put)
        finally:
            self.table_service.EnableTable(self.tables.EnableTableRequest(table=self.payments), timeout=30)
        self.record.PutRecord(put)
    def test_zzz_every_call_of_the_api_was_made(self):
        """The last test, by its name. It says nothing where only some of the tests are run."""
        here = {name for name in dir(self) if name.startswith("test_")}
        if not self.server or type(self).begun != here:
            self.skipTest("not all of the tests were run")
        never = methods_of(self.channel, "shockabsorber.v1") - self.calls.methods
        self.assertEqual(never, set(), "no test of a client that is not ours makes these calls")

    begun = set()

    def setUp(self):
        type(self).begun.add(self.id().rsplit(".", 1)[-1])


if __name__ == "__main__":
    unittest.main()
