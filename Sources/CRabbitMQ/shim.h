/* librabbitmq for Swift: unions and macro constants become flat structs and functions. Nothing here waits for an answer; the
 * connection's thread reads frames one by one. librabbitmq moved its headers into a directory in 0.12; accept both layouts. */
#pragma once
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/time.h>
#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/framing.h>
#include <rabbitmq-c/ssl_socket.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#endif

/* ---- What wakes and names the connection's thread; Glibc's module has neither ---- */

static inline int apus_amqp_wake_up_new(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }
static inline void apus_amqp_wake_up(int descriptor) { (void)eventfd_write(descriptor, 1); }
static inline void apus_amqp_wake_up_clear(int descriptor) {
    eventfd_t count;
    (void)eventfd_read(descriptor, &count);
}
static inline void apus_amqp_name_thread(void) { (void)prctl(PR_SET_NAME, "amqp", 0, 0, 0); }

/* ---- Field tables ---- */

#define APUS_AMQP_FIELDS 16

typedef struct {
    int count;
    amqp_table_entry_t entries[APUS_AMQP_FIELDS];
} apus_amqp_table;

static inline apus_amqp_table *apus_amqp_table_new(void) { return (apus_amqp_table *)calloc(1, sizeof(apus_amqp_table)); }

static inline void apus_amqp_table_free(apus_amqp_table *table) {
    for (int i = 0; i < table->count; i++) {
        free(table->entries[i].key.bytes);
        if (table->entries[i].value.kind == AMQP_FIELD_KIND_UTF8) free(table->entries[i].value.value.bytes.bytes);
    }
    free(table);
}

/* Entries beyond the capacity are not added: every table of the driver is far smaller. */
static inline amqp_table_entry_t *apus_amqp_table_add(apus_amqp_table *table, const char *key) {
    if (table->count >= APUS_AMQP_FIELDS) return NULL;
    amqp_table_entry_t *entry = &table->entries[table->count++];
    entry->key = amqp_cstring_bytes(strdup(key));
    return entry;
}

static inline void apus_amqp_table_add_string(apus_amqp_table *table, const char *key, const char *text) {
    amqp_table_entry_t *entry = apus_amqp_table_add(table, key);
    if (!entry) return;
    entry->value.kind = AMQP_FIELD_KIND_UTF8;
    entry->value.value.bytes = amqp_cstring_bytes(strdup(text));
}

/* RabbitMQ compares arguments by value, so the width does not matter; py-amqp sends small ones as 32-bit. */
static inline void apus_amqp_table_add_integer(apus_amqp_table *table, const char *key, int64_t number) {
    amqp_table_entry_t *entry = apus_amqp_table_add(table, key);
    if (!entry) return;
    if (number >= INT32_MIN && number <= INT32_MAX) {
        entry->value.kind = AMQP_FIELD_KIND_I32;
        entry->value.value.i32 = (int32_t)number;
    } else {
        entry->value.kind = AMQP_FIELD_KIND_I64;
        entry->value.value.i64 = number;
    }
}

static inline void apus_amqp_table_add_bool(apus_amqp_table *table, const char *key, int truth) {
    amqp_table_entry_t *entry = apus_amqp_table_add(table, key);
    if (!entry) return;
    entry->value.kind = AMQP_FIELD_KIND_BOOLEAN;
    entry->value.value.boolean = truth;
}

static inline amqp_table_t apus_amqp_table_of(apus_amqp_table *table) {
    amqp_table_t plain = {table ? table->count : 0, table ? table->entries : NULL};
    return plain;
}

/* ---- Methods we send ---- */

static inline int apus_amqp_start_ok(
    amqp_connection_state_t state, const char *mechanism, const void *response, size_t length, const char *name) {
    apus_amqp_table *properties = apus_amqp_table_new(), *capabilities = apus_amqp_table_new();
    if (!properties || !capabilities) abort();
    apus_amqp_table_add_bool(capabilities, "authentication_failure_close", 1);
    apus_amqp_table_add_bool(capabilities, "connection.blocked", 1);
    apus_amqp_table_add_bool(capabilities, "consumer_cancel_notify", 1);
    apus_amqp_table_add_string(properties, "product", "Apus");
    apus_amqp_table_add_string(properties, "connection_name", name);
    amqp_table_entry_t *entry = apus_amqp_table_add(properties, "capabilities");
    entry->value.kind = AMQP_FIELD_KIND_TABLE;
    entry->value.value.table = apus_amqp_table_of(capabilities);
    amqp_connection_start_ok_t method;
    memset(&method, 0, sizeof method);
    method.client_properties = apus_amqp_table_of(properties);
    method.mechanism = amqp_cstring_bytes(mechanism);
    method.response.len = length;
    method.response.bytes = (void *)response;
    method.locale = amqp_cstring_bytes("en_US");
    int status = amqp_send_method(state, 0, AMQP_CONNECTION_START_OK_METHOD, &method);
    apus_amqp_table_free(properties);
    apus_amqp_table_free(capabilities);
    return status;
}

/* librabbitmq's own heartbeats stay off: the connection's thread sends and expects them. */
static inline int apus_amqp_tune_ok(
    amqp_connection_state_t state, uint16_t channel_max, uint32_t frame_max, uint16_t heartbeat) {
    int status = amqp_tune_connection(state, channel_max, (int)frame_max, 0);
    if (status != AMQP_STATUS_OK) return status;
    amqp_connection_tune_ok_t method = {channel_max, frame_max, heartbeat};
    return amqp_send_method(state, 0, AMQP_CONNECTION_TUNE_OK_METHOD, &method);
}

static inline int apus_amqp_open(amqp_connection_state_t state, const char *virtual_host) {
    amqp_connection_open_t method;
    memset(&method, 0, sizeof method);
    method.virtual_host = amqp_cstring_bytes(virtual_host);
    return amqp_send_method(state, 0, AMQP_CONNECTION_OPEN_METHOD, &method);
}

static inline int apus_amqp_close(amqp_connection_state_t state) {
    amqp_connection_close_t method;
    memset(&method, 0, sizeof method);
    method.reply_code = AMQP_REPLY_SUCCESS;
    method.reply_text = amqp_cstring_bytes("closed");
    return amqp_send_method(state, 0, AMQP_CONNECTION_CLOSE_METHOD, &method);
}

static inline int apus_amqp_close_ok(amqp_connection_state_t state) {
    amqp_connection_close_ok_t method = {0};
    return amqp_send_method(state, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &method);
}

static inline int apus_amqp_heartbeat(amqp_connection_state_t state) {
    amqp_frame_t frame;
    memset(&frame, 0, sizeof frame);
    frame.frame_type = AMQP_FRAME_HEARTBEAT;
    return amqp_send_frame(state, &frame);
}

static inline int apus_amqp_channel_open(amqp_connection_state_t state, uint16_t channel) {
    amqp_channel_open_t method;
    memset(&method, 0, sizeof method);
    return amqp_send_method(state, channel, AMQP_CHANNEL_OPEN_METHOD, &method);
}

static inline int apus_amqp_channel_close_ok(amqp_connection_state_t state, uint16_t channel) {
    amqp_channel_close_ok_t method = {0};
    return amqp_send_method(state, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &method);
}

static inline int apus_amqp_confirm_select(amqp_connection_state_t state, uint16_t channel) {
    amqp_confirm_select_t method;
    memset(&method, 0, sizeof method);
    return amqp_send_method(state, channel, AMQP_CONFIRM_SELECT_METHOD, &method);
}

static inline int apus_amqp_exchange_declare(
    amqp_connection_state_t state, uint16_t channel, const char *name, const char *type, int passive, int durable,
    int auto_delete) {
    amqp_exchange_declare_t method;
    memset(&method, 0, sizeof method);
    method.exchange = amqp_cstring_bytes(name);
    method.type = amqp_cstring_bytes(type);
    method.passive = passive;
    method.durable = durable;
    method.auto_delete = auto_delete;
    return amqp_send_method(state, channel, AMQP_EXCHANGE_DECLARE_METHOD, &method);
}

static inline int apus_amqp_queue_declare(
    amqp_connection_state_t state, uint16_t channel, const char *name, int passive, int durable, int exclusive,
    int auto_delete, apus_amqp_table *arguments) {
    amqp_queue_declare_t method;
    memset(&method, 0, sizeof method);
    method.queue = amqp_cstring_bytes(name);
    method.passive = passive;
    method.durable = durable;
    method.exclusive = exclusive;
    method.auto_delete = auto_delete;
    method.arguments = apus_amqp_table_of(arguments);
    return amqp_send_method(state, channel, AMQP_QUEUE_DECLARE_METHOD, &method);
}

static inline int apus_amqp_queue_bind(
    amqp_connection_state_t state, uint16_t channel, const char *queue, const char *exchange, const char *key) {
    amqp_queue_bind_t method;
    memset(&method, 0, sizeof method);
    method.queue = amqp_cstring_bytes(queue);
    method.exchange = amqp_cstring_bytes(exchange);
    method.routing_key = amqp_cstring_bytes(key);
    return amqp_send_method(state, channel, AMQP_QUEUE_BIND_METHOD, &method);
}

static inline int apus_amqp_queue_delete(amqp_connection_state_t state, uint16_t channel, const char *queue) {
    amqp_queue_delete_t method;
    memset(&method, 0, sizeof method);
    method.queue = amqp_cstring_bytes(queue);
    return amqp_send_method(state, channel, AMQP_QUEUE_DELETE_METHOD, &method);
}

static inline int apus_amqp_qos(amqp_connection_state_t state, uint16_t channel, uint16_t count) {
    amqp_basic_qos_t method = {0, count, 0};
    return amqp_send_method(state, channel, AMQP_BASIC_QOS_METHOD, &method);
}

static inline int apus_amqp_consume(
    amqp_connection_state_t state, uint16_t channel, const char *queue, const char *tag, apus_amqp_table *arguments) {
    amqp_basic_consume_t method;
    memset(&method, 0, sizeof method);
    method.queue = amqp_cstring_bytes(queue);
    method.consumer_tag = amqp_cstring_bytes(tag);
    method.arguments = apus_amqp_table_of(arguments);
    return amqp_send_method(state, channel, AMQP_BASIC_CONSUME_METHOD, &method);
}

static inline int apus_amqp_cancel(amqp_connection_state_t state, uint16_t channel, const char *tag) {
    amqp_basic_cancel_t method = {amqp_cstring_bytes(tag), 0};
    return amqp_send_method(state, channel, AMQP_BASIC_CANCEL_METHOD, &method);
}

static inline int apus_amqp_ack(amqp_connection_state_t state, uint16_t channel, uint64_t tag) {
    amqp_basic_ack_t method = {tag, 0};
    return amqp_send_method(state, channel, AMQP_BASIC_ACK_METHOD, &method);
}

static inline int apus_amqp_publish(
    amqp_connection_state_t state, uint16_t channel, const char *exchange, const char *key, int mandatory,
    const char *content_type, const char *content_encoding, uint8_t delivery_mode, uint8_t priority,
    const char *expiration, const void *body, size_t length) {
    amqp_basic_properties_t properties;
    memset(&properties, 0, sizeof properties);
    properties._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_CONTENT_ENCODING_FLAG | AMQP_BASIC_HEADERS_FLAG |
                        AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_PRIORITY_FLAG;
    properties.content_type = amqp_cstring_bytes(content_type);
    properties.content_encoding = amqp_cstring_bytes(content_encoding);
    properties.delivery_mode = delivery_mode;
    properties.priority = priority;
    if (expiration) {
        properties._flags |= AMQP_BASIC_EXPIRATION_FLAG;
        properties.expiration = amqp_cstring_bytes(expiration);
    }
    amqp_bytes_t bytes = {length, (void *)body};
    return amqp_basic_publish(
        state, channel, amqp_cstring_bytes(exchange), amqp_cstring_bytes(key), mandatory, 0, &properties, bytes);
}

/* ---- Frames we read ---- */

/* A frame, flattened. Which fields count depends on kind and method; pointers hold until the next call. */
typedef struct {
    uint8_t kind;      /* AMQP_FRAME_METHOD, _HEADER, _BODY */
    uint16_t channel;
    uint32_t method;
    uint64_t number;   /* delivery tag, reply code, message count, frame_max, body size */
    uint64_t second;   /* consumer count, heartbeat, channel_max << 16 | heartbeat */
    int flag;          /* redelivered, multiple */
    uint8_t delivery_mode, priority;
    amqp_bytes_t text; /* consumer tag, reply text, reason, mechanisms, content type, body */
    amqp_bytes_t exchange, key;
    amqp_bytes_t encoding, expiration;
} apus_amqp_frame;

static inline void apus_amqp_flatten_method(const amqp_method_t *method, apus_amqp_frame *out) {
    out->method = method->id;
    switch (method->id) {
    case AMQP_CONNECTION_START_METHOD: out->text = ((amqp_connection_start_t *)method->decoded)->mechanisms; break;
    case AMQP_CONNECTION_TUNE_METHOD: {
        amqp_connection_tune_t *tune = (amqp_connection_tune_t *)method->decoded;
        out->number = tune->frame_max;
        out->second = (uint64_t)tune->channel_max << 16 | tune->heartbeat;
        break;
    }
    case AMQP_CONNECTION_CLOSE_METHOD: {
        amqp_connection_close_t *close = (amqp_connection_close_t *)method->decoded;
        out->number = close->reply_code;
        out->text = close->reply_text;
        break;
    }
    case AMQP_CHANNEL_CLOSE_METHOD: {
        amqp_channel_close_t *close = (amqp_channel_close_t *)method->decoded;
        out->number = close->reply_code;
        out->text = close->reply_text;
        break;
    }
    case AMQP_CONNECTION_BLOCKED_METHOD: out->text = ((amqp_connection_blocked_t *)method->decoded)->reason; break;
    case AMQP_QUEUE_DECLARE_OK_METHOD: {
        amqp_queue_declare_ok_t *ok = (amqp_queue_declare_ok_t *)method->decoded;
        out->number = ok->message_count;
        out->second = ok->consumer_count;
        break;
    }
    case AMQP_BASIC_CANCEL_METHOD: out->text = ((amqp_basic_cancel_t *)method->decoded)->consumer_tag; break;
    case AMQP_BASIC_DELIVER_METHOD: {
        amqp_basic_deliver_t *deliver = (amqp_basic_deliver_t *)method->decoded;
        out->number = deliver->delivery_tag;
        out->flag = deliver->redelivered;
        out->text = deliver->consumer_tag;
        out->exchange = deliver->exchange;
        out->key = deliver->routing_key;
        break;
    }
    case AMQP_BASIC_RETURN_METHOD: {
        amqp_basic_return_t *returned = (amqp_basic_return_t *)method->decoded;
        out->number = returned->reply_code;
        out->text = returned->reply_text;
        out->exchange = returned->exchange;
        out->key = returned->routing_key;
        break;
    }
    case AMQP_BASIC_ACK_METHOD: {
        amqp_basic_ack_t *ack = (amqp_basic_ack_t *)method->decoded;
        out->number = ack->delivery_tag;
        out->flag = ack->multiple;
        break;
    }
    case AMQP_BASIC_NACK_METHOD: {
        amqp_basic_nack_t *nack = (amqp_basic_nack_t *)method->decoded;
        out->number = nack->delivery_tag;
        out->flag = nack->multiple;
        break;
    }
    default: break;
    }
}

/* The next frame without waiting: AMQP_STATUS_OK, AMQP_STATUS_TIMEOUT where none is complete, or an error. */
static inline int apus_amqp_next_frame(amqp_connection_state_t state, apus_amqp_frame *out) {
    struct timeval now = {0, 0};
    amqp_frame_t frame;
    amqp_maybe_release_buffers(state);
    memset(out, 0, sizeof *out);
    int status = amqp_simple_wait_frame_noblock(state, &frame, &now);
    if (status != AMQP_STATUS_OK) return status;
    out->kind = frame.frame_type;
    out->channel = frame.channel;
    if (frame.frame_type == AMQP_FRAME_METHOD) apus_amqp_flatten_method(&frame.payload.method, out);
    if (frame.frame_type == AMQP_FRAME_BODY) out->text = frame.payload.body_fragment;
    if (frame.frame_type == AMQP_FRAME_HEADER) {
        amqp_basic_properties_t *properties = (amqp_basic_properties_t *)frame.payload.properties.decoded;
        out->number = frame.payload.properties.body_size;
        if (frame.payload.properties.class_id != AMQP_BASIC_CLASS || !properties) return AMQP_STATUS_BAD_AMQP_DATA;
        if (properties->_flags & AMQP_BASIC_CONTENT_TYPE_FLAG) out->text = properties->content_type;
        if (properties->_flags & AMQP_BASIC_CONTENT_ENCODING_FLAG) out->encoding = properties->content_encoding;
        if (properties->_flags & AMQP_BASIC_EXPIRATION_FLAG) out->expiration = properties->expiration;
        if (properties->_flags & AMQP_BASIC_DELIVERY_MODE_FLAG) out->delivery_mode = properties->delivery_mode;
        if (properties->_flags & AMQP_BASIC_PRIORITY_FLAG) out->priority = properties->priority;
    }
    return AMQP_STATUS_OK;
}
