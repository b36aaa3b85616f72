#!/usr/bin/python3
"""A peer made of oslo.messaging itself: peer.py MODE TRANSPORT_URL [ARGUMENT]. Prints one JSON value a line."""
import json
import sys
import time
import types

from oslo_config import cfg
import oslo_messaging


class InstanceNotFound(Exception):
    """Stands for nova's: a message and named parameters."""

    def __init__(self, message=None, **kwargs):
        self.kwargs = kwargs
        self.code = kwargs.get('code')
        super().__init__(message or 'Instance could not be found.')


nova, exception = types.ModuleType('nova'), types.ModuleType('nova.exception')
InstanceNotFound.__module__ = 'nova.exception'
exception.InstanceNotFound = InstanceNotFound
nova.exception = exception
sys.modules['nova'], sys.modules['nova.exception'] = nova, exception


def say(value):
    print(json.dumps(value), flush=True)


def transport(url, get=oslo_messaging.get_rpc_transport):
    conf = cfg.CONF  # where oslo.messaging itself registers the options of its metrics
    conf([], project='peer')
    oslo_messaging.set_transport_defaults('nova')
    return get(conf, url=url, **({'allowed_remote_exmods': ['nova.exception']}
                                 if get is oslo_messaging.get_rpc_transport else {})), conf


class Context(oslo_messaging.NoOpSerializer):
    def serialize_context(self, context):
        return context

    def deserialize_context(self, context):
        return context


def outcome(action):
    start = time.time()
    try:
        answer = {'result': action()}
    except Exception as error:
        answer = {'class': type(error).__name__, 'message': str(error),
                  'is_not_implemented': isinstance(error, NotImplementedError),
                  'is_instance_not_found': isinstance(error, InstanceNotFound),
                  'exc_type': getattr(error, 'exc_type', None), 'code': getattr(error, 'code', None)}
    answer['seconds'] = time.time() - start
    return answer


def client(url):
    """Calls our server on topic compute, server host-1."""
    t, _ = transport(url)
    target = oslo_messaging.Target(topic='compute', version='6.0')
    rpc = oslo_messaging.get_rpc_client(t, target, serializer=Context())
    context = {'request_id': 'req-1', 'user_id': 'u', 'roles': ['member'], 'is_admin': True}
    one = rpc.prepare(server='host-1', timeout=20)
    value = {'text': 'größe \u2028 \U0001f600', 'nested': [1, 2.5, None, {'deep': True}], 'big': 2 ** 40}
    say(['echo', outcome(lambda: one.call(context, 'echo', value=value)), value])
    say(['topic', outcome(lambda: rpc.prepare(timeout=20).call(context, 'echo', value=1))])
    say(['context', outcome(lambda: one.call(context, 'context')), context])
    say(['not_found', outcome(lambda: one.call(context, 'not_found'))])
    say(['not_implemented', outcome(lambda: one.call(context, 'not_implemented'))])
    say(['unknown_method', outcome(lambda: one.call(context, 'no_such'))])
    say(['unknown_version', outcome(
        lambda: rpc.prepare(server='host-1', version='7.0', timeout=20).call(context, 'echo', value=1))])
    say(['namespace', outcome(lambda: oslo_messaging.get_rpc_client(
        t, oslo_messaging.Target(topic='compute', namespace='baseapi', version='1.1')).prepare(
            server='host-1', timeout=20).call(context, 'ping', arg='a'))])
    slow = rpc.prepare(server='host-1', timeout=20, call_monitor_timeout=2)
    say(['monitored', outcome(lambda: slow.call(context, 'slow', seconds=4))])
    one.cast(context, 'note', value='cast')
    rpc.prepare(fanout=True).cast(context, 'note', value='fanout')
    say(['done'])


class Endpoint:
    target = oslo_messaging.Target(version='6.1')

    def __init__(self):
        self.notes = []

    def echo(self, context, value):
        return value

    def context(self, context):
        return context

    def not_found(self, context):
        raise InstanceNotFound('Instance abc could not be found.', instance_id='abc', code=404)

    def not_implemented(self, context):
        raise NotImplementedError('not here')

    def slow(self, context, seconds):
        time.sleep(seconds)
        return 'slept'

    def note(self, context, value):
        say(['note', value])


def server(url):
    """Serves topic peer, server python."""
    t, _ = transport(url)
    rpc = oslo_messaging.get_rpc_server(
        t, oslo_messaging.Target(topic='peer', server='python'), [Endpoint()], executor='threading',
        serializer=Context())
    rpc.start()
    say(['ready'])
    rpc.wait()


class Listener:
    def info(self, context, publisher_id, event_type, payload, metadata):
        say([context, publisher_id, event_type, payload, metadata])

    error = info


def listener(url):
    t, _ = transport(url, oslo_messaging.get_notification_transport)
    rpc = oslo_messaging.get_notification_listener(
        t, [oslo_messaging.Target(topic='versioned_notifications')], [Listener()], executor='threading')
    rpc.start()
    say(['ready'])
    rpc.wait()


if __name__ == '__main__':
    {'client': client, 'server': server, 'listener': listener}[sys.argv[1]](*sys.argv[2:])
