{{- /* nova.conf from the map of sections; null leaves an option out. */ -}}
{{- define "apus.nova_conf" -}}
{{- range $section, $options := .Values.conf.nova }}
[{{ $section }}]
{{- range $option, $value := $options }}
{{- if not (kindIs "invalid" $value) }}
{{ $option }} = {{ if kindIs "slice" $value }}{{ join "," $value }}{{ else }}{{ $value }}{{ end }}
{{- end }}
{{- end }}
{{ end }}
[apus]
listen = 0.0.0.0:{{ .Values.metrics.port }}
{{- end -}}
